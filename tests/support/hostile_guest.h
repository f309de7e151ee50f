// A hostile guest: any bytes as code of ring 0 or 3, with any tables, in every mode. The first bytes choose mode,
// registers and what is poked into tables; the rest is code, and data besides.
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <span>

#include "cpu/code_map.h"
#include "cpu/fpu.h"
#include "cpu/lapic.h"
#include "cpu/mmu.h"
#include "engine/emit/code_arena.h"
#include "engine/registry.h"

namespace trapline::test {

namespace hostile {

using namespace cpu;

inline constexpr u64 kRam = 2 * MiB;
inline constexpr u64 kIdt = 0x1000, kGdt = 0x2000, kTss = 0x3000, kLdt = 0x4000, kHandlers = 0x5000, kStack = 0x7f00,
                     kCode = 0x8000, kData = 0x40000, kTables = 0x10000, kTablesEnd = 0x18000;
inline constexpr u64 kUpper = 0xffff800000000000;
inline constexpr u64 kBudget = 400;
inline constexpr unsigned kRounds = 6;

// Reads the input from its start; zeros once it is used up.
class Input {
 public:
  Input(const u8* data, std::size_t size) : data_{data}, size_{size} {}
  template <class T>
  T next() {
    T v{};
    const std::size_t n = std::min(sizeof v, size_);
    std::memcpy(&v, data_, n);
    data_ += n, size_ -= n;
    return v;
  }
  std::size_t left() const { return size_; }
  const u8* rest() const { return data_; }

 private:
  const u8* data_;
  std::size_t size_;
};

struct AnyBus final : Bus {
  u64 value = 0x0123456789abcdef;
  u64 turn() { return value = value << 7 | value >> 57; }
  u32 port_read(Vcpu&, u16, unsigned) override { return static_cast<u32>(turn()); }
  void port_write(Vcpu&, u16, unsigned, u32) override {}
  u64 mmio_read(Vcpu&, Gpa, unsigned) override { return turn(); }
  void mmio_write(Vcpu&, Gpa, unsigned, u64) override {}
  u8 pic_acknowledge(Vcpu&) override { return static_cast<u8>(turn()); }
  void ioapic_eoi(Vcpu&, u8) override {}
};

enum class Start : u8 { real, protected32, paged32, pae, long64, compat };

class Machine {
 public:
  explicit Machine(const engine::EngineKind& kind) : ram_{std::move(*GuestMemory::anonymous(kRam))}, map_{ram_} {
    cpu_.ram = &ram_;
    cpu_.ram_base = ram_.base();
    cpu_.bus = &bus_;
    cpu_.clock = &clock_;
    cpu_.code = &map_;
    cpu_.cpuid = &cpuid_;
    clock_.instructions = true;
    cpu_.lapic = &lapic_;
    mmu_create(cpu_);
    map_.add_vcpu(&cpu_);
    reset(cpu_, false);
    engine_ = kind.make(cpu_, arena_, {}, {.hot_threshold = 1});
  }
  ~Machine() {
    engine_.reset();
    mmu_destroy(cpu_);
  }
  // False: more instructions have retired than the engine was given.
  [[nodiscard]] bool run(std::span<const u8> bytes);
  const Vcpu& cpu() const { return cpu_; }

 private:
  template <class T>
  void put(u64 gpa, T v) {
    std::memcpy(ram_.host(Gpa{gpa}), &v, sizeof v);
  }
  void make_tables(Start start);
  void make_page_tables(Start start);
  void make_handler(Input& in, Start start, unsigned vector);
  void make_registers(Input& in, Start start);
  void load(isa::Seg s, u16 selector, u16 attr, u64 base, u32 limit);

  GuestMemory ram_;
  CodeMap map_;
  Cpuid cpuid_ = std::move(*Cpuid::make({.cpus = 1, .para_kvm = false, .tsc_khz = 1'000'000}));
  AnyBus bus_;
  Clock clock_;
  LapicInbox inbox_{};
  LapicMirror mirror_{};
  Vcpu cpu_;
  Lapic lapic_{cpu_, inbox_, mirror_};
  engine::CodeArena arena_{16 * MiB};
  std::unique_ptr<engine::Engine> engine_;
};

inline void Machine::load(isa::Seg s, u16 selector, u16 attr, u64 base, u32 limit) {
  Segment& out = cpu_.segment(s);
  out = Segment{};
  out.selector = selector;
  out.attr = attr;
  out.base = base;
  out.limit = limit;
  out.usable = true;
}

// Descriptors of every kind, and gates to each handler; the input overwrites what it likes.
inline void Machine::make_tables(Start start) {
  const bool wide = start == Start::long64 || start == Start::compat;
  const u64 descriptors[] = {0,
                             0x00af9b000000ffff,   // 08 code, 64 bits
                             0x00cf93000000ffff,   // 10 data
                             0x00cf9b000000ffff,   // 18 code, 32 bits
                             0x008f9b000000ffff,   // 20 code, 16 bits
                             0x00cff3000000ffff,   // 28 data, ring 3
                             0x00affb000000ffff,   // 30 code, 64 bits, ring 3
                             0x00cffb000000ffff,   // 38 code, 32 bits, ring 3
                             0x0000890030000067,   // 40 TSS
                             0,                    // 48 its upper half
                             0x00008200400000ff,   // 50 LDT
                             0,                    // 58 its upper half
                             0x0000ec0000085000,   // 60 call gate
                             0,                    // 68 its upper half
                             0x0000e50000780000,   // 70 task gate
                             0x0000890034000067,   // 78 another TSS
                             0,                    // 80
                             0x00cf97000000ffff};  // 88 expand-down data
  for (u64 i = 0; i < std::size(descriptors); i++) put(kGdt + 8 * i, descriptors[i]);
  for (u64 v = 0; v < 256; v++) {
    const u64 handler = kHandlers + (v & 31) * 16;
    if (start == Start::real) {
      put<u32>(v * 4, static_cast<u32>(handler));
      continue;
    }
    const u64 selector = wide ? 8 : 0x18, dpl = v & 1 ? 3 : 0, type = v % 16 == 9 ? 0x8500 : 0x8e00;
    const u64 gate = v % 16 == 9 && !wide ? u64{0x78} << 16 | type << 32
                                          : (handler & 0xffff) | selector << 16 | (0x8e00 | dpl << 13) << 32;
    put<u64>(kIdt + v * (wide ? 16 : 8), gate);
    if (wide) put<u64>(kIdt + v * 16 + 8, 0);
  }
  put<u32>(kTss + 4, static_cast<u32>(kStack - 0x400));
  put<u32>(kTss + (wide ? 8 : 0x66), wide ? 0 : 0x680000);
  if (!wide) put<u32>(kTss + 8, 0x10);
}

inline void Machine::make_page_tables(Start start) {
  if (start == Start::paged32) {
    put<u32>(kTables, static_cast<u32>(kTables + 0x1000) | 7);
    put<u32>(kTables + 4, 0x83);
    for (u32 i = 0; i < 1024; i++) put<u32>(kTables + 0x1000 + 4 * i, i << 12 | 7);
    return;
  }
  u64 top = kTables, next = kTables + 0x1000;
  if (start != Start::pae) {
    put<u64>(top, next | 7);
    put<u64>(top + 8 * 256, next | 7);
    top = next, next += 0x1000;
  }
  put<u64>(top, next | (start == Start::pae ? 1 : 7));
  put<u64>(top + 8, next | (start == Start::pae ? 1 : 7));
  top = next, next += 0x1000;
  put<u64>(top, next | 7);
  put<u64>(top + 8, u64{0x87});
  for (u64 i = 0; i < 512; i++) put<u64>(next + 8 * i, i << 12 | 7);
}

inline void Machine::make_registers(Input& in, Start start) {
  const bool paged = start >= Start::paged32, wide = start >= Start::long64;
  const bool user = start != Start::real && in.next<u8>() % 4 == 0;
  const u16 system = in.next<u16>();
  cpu_.cr0 = 0x10 | (start != Start::real ? cr0::pe : 0) | (paged ? cr0::pg : 0) | (system & 1 ? cr0::wp : 0) |
             (system & 2 ? cr0::am : 0) | (system & 4 ? cr0::ne : 0) | (system & 0x3000 ? 0 : cr0::ts);
  cpu_.cr4 = (start >= Start::pae ? cr4::pae : 0) | (system & 8 ? cr4::osfxsr | cr4::osxmmexcpt | cr4::osxsave : 0) |
             (system & 16 ? cr4::pge : 0) | (system & 32 ? cr4::smep | cr4::smap : 0) |
             (system & 64 ? cr4::fsgsbase : 0) | (system & 128 ? cr4::umip : 0) | (system & 256 ? cr4::pse : 0);
  cpu_.cr4 &= cpuid_.cr4_allowed();
  cpu_.efer = (wide ? efer::lme | efer::lma : 0) | (system & 512 ? efer::nxe : 0) | (system & 1024 ? efer::sce : 0);
  if (cpu_.cr4 & cr4::osxsave) cpu_.xcr0 = cpuid_.xcr0_allowed();
  cpu_.cr3 = kTables;
  if (start == Start::pae)
    for (unsigned i = 0; i < 2; i++) cpu_.pdpte[i] = (kTables + 0x1000) | 1;
  cpu_.gdtr = {kGdt, 0x8f};
  cpu_.idtr = {start == Start::real ? 0 : kIdt, start == Start::real ? u16{0x3ff} : u16{0xfff}};
  const u16 flat = 0xc093, code = start == Start::long64 ? 0xa09b : 0xc09b;
  if (start == Start::real) {
    for (unsigned s = 0; s < 6; s++) load(static_cast<isa::Seg>(s), 0, 0x93, 0, 0xffff);
    load(isa::Seg::cs, 0, 0x9b, 0, 0xffff);
  } else {
    const u16 ring = user ? 3 : 0, dpl = static_cast<u16>(ring << 5);
    for (unsigned s = 0; s < 6; s++)
      load(static_cast<isa::Seg>(s), static_cast<u16>((user ? 0x28 : 0x10) | ring), flat | dpl, 0, ~0u);
    load(isa::Seg::cs,
         static_cast<u16>((start == Start::long64 ? user ? 0x30 : 8
                           : user                 ? 0x38
                                                  : 0x18) |
                          ring),
         code | dpl, 0, ~0u);
    cpu_.cpl = static_cast<u8>(ring);
  }
  cpu_.tr = Segment{};
  cpu_.tr.selector = 0x40, cpu_.tr.attr = 0x8b, cpu_.tr.base = kTss, cpu_.tr.limit = 0x67, cpu_.tr.usable = true;
  const u8 chosen = in.next<u8>();
  for (unsigned r = 0; r < 16; r++) {
    const u64 offset = in.next<u16>();
    cpu_.gpr[r] = chosen >> (r & 7) & 1 ? in.next<u64>() : kData + offset + (wide && offset & 1 ? kUpper : 0);
  }
  cpu_.gpr[isa::rsp] = kStack - 0x10;
  if (in.next<u8>() % 16 == 0) cpu_.gpr[isa::rsp] = in.next<u64>();
  cpu_.set_rflags_raw(in.next<u32>() & 0x3f7fd5);
  if (start != Start::protected32 && start != Start::paged32) cpu_.sys_flags &= ~flag::vm;
  if (in.next<u8>() % 4) cpu_.sys_flags &= ~(flag::tf | flag::vm);
  cpu_.msr.star = u64{0x0018'0008} << 32;
  cpu_.msr.lstar = cpu_.msr.sysenter_esp = kHandlers;
  cpu_.msr.sysenter_cs = 8, cpu_.msr.sysenter_eip = kHandlers + 64;
  cpu_.rip = kCode;
}

// Mostly one that goes on at the byte after; else a HLT, or what the input gives.
inline void Machine::make_handler(Input& in, Start start, unsigned vector) {
  static constexpr u8 kReal[] = {0x55, 0x89, 0xe5, 0xff, 0x46, 0x02, 0x5d, 0xcf};  // inc word [bp+2] after push bp
  static constexpr u8 kFlat[] = {0x83, 0xc4, 0x04, 0x83,
                                 0x04, 0x24, 0x01, 0xcf};  // add esp,4; add dword [esp],1; iretd
  static constexpr u8 kWide[] = {0x48, 0x83, 0xc4, 0x08, 0x48, 0x83, 0x04, 0x24, 0x01, 0x48, 0xcf};
  const bool coded = vector < 32 && has_error_code(static_cast<Vector>(vector));
  std::span<const u8> skip = kReal;
  if (start >= Start::long64)
    skip = std::span{kWide}.subspan(coded ? 0 : 4);
  else if (start != Start::real)
    skip = std::span{kFlat}.subspan(coded ? 0 : 3);
  const u64 at = kHandlers + 16 * vector;
  const u8 kind = in.next<u8>() % 16;
  if (kind < 14)
    std::memcpy(ram_.host(Gpa{at}), skip.data(), skip.size());
  else
    put<u64>(at, kind == 14 ? 0xf4 : in.next<u64>());
}

inline bool Machine::run(std::span<const u8> bytes) {
  Input in{bytes.data(), bytes.size()};
  const Start start = static_cast<Start>(in.next<u8>() % 6);
  make_tables(start);
  if (start >= Start::paged32) make_page_tables(start);
  make_registers(in, start);
  for (unsigned v = 0; v < 32; v++) make_handler(in, start, v);
  for (unsigned pokes = in.next<u8>() % 16; pokes > 0; pokes--) {
    const u64 at = in.next<u16>() % (kTablesEnd - kIdt) + kIdt;
    put<u64>(at & ~u64{7}, in.next<u64>());
  }
  const u64 size = std::min<u64>(in.left(), 0x4000);
  std::memcpy(ram_.host(Gpa{kCode}), in.rest(), size);
  std::memcpy(ram_.host(Gpa{kData}), in.rest(), size);
  update_mode(cpu_);
  tlb_flush_all(cpu_);
  for (unsigned round = 0; round < kRounds; round++) {
    const u64 before = cpu_.retired;
    const engine::Exit exit = engine_->run(cpu_, kBudget);
    if (cpu_.retired - before > kBudget) return false;
    if (exit == engine::Exit::shutdown || exit == engine::Exit::waiting) return true;
    static constexpr u32 kEvents[] = {attention::nmi, attention::interrupt, attention::kick, attention::timer,
                                      attention::code_changed};
    cpu_.attention->fetch_or(kEvents[round % std::size(kEvents)]);
    if (exit == engine::Exit::halted) cpu_.attention->fetch_or(attention::nmi);
  }
  return true;
}

}  // namespace hostile

using HostileGuest = hostile::Machine;

}  // namespace trapline::test
