// RAM, one vCPU and a bus that remembers, for tests of the CPU core; and page tables of any kind, one mapping at a
// time.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "cpu/code_map.h"
#include "cpu/mmu.h"
#include "cpu/semantics.h"

namespace trapline::cpu::test {

struct RecordingBus : Bus {
  std::vector<std::string> log;
  std::map<u64, u64> mmio;                // by address; absent: all ones
  std::map<u16, std::vector<u32>> input;  // by port: values to hand out in order; then all ones

  u32 port_read(Vcpu&, u16 port, unsigned size) override {
    log.push_back(fmt::format("in{} {:#x}", size, port));
    auto& queue = input[port];
    if (queue.empty()) return ~0u;
    const u32 v = queue.front();
    queue.erase(queue.begin());
    return v;
  }
  void port_write(Vcpu&, u16 port, unsigned size, u32 value) override {
    log.push_back(fmt::format("out{} {:#x} {:#x}", size, port, value));
  }
  u64 mmio_read(Vcpu&, Gpa gpa, unsigned size) override {
    log.push_back(fmt::format("r{} {:#x}", size, gpa.raw));
    const auto it = mmio.find(gpa.raw);
    return it == mmio.end() ? ~u64{0} : it->second;
  }
  void mmio_write(Vcpu&, Gpa gpa, unsigned size, u64 value) override {
    log.push_back(fmt::format("w{} {:#x} {:#x}", size, gpa.raw, value));
  }
  u8 pic_acknowledge(Vcpu&) override { return 0; }
  void ioapic_eoi(Vcpu&, u8) override {}
};

namespace pte {
constexpr u64 p = 1, w = 2, u = 4, a = 32, d = 64, ps = 128, g = 256, nx = u64{1} << 63;
}

struct BareVm {
  GuestMemory ram;
  CodeMap code;
  Vcpu cpu;
  RecordingBus bus;
  u64 next_table = 0x100000;  // page tables grow from here

  explicit BareVm(u64 bytes = 16 * MiB) : BareVm{std::move(*GuestMemory::anonymous(bytes))} {}
  explicit BareVm(GuestMemory memory) : ram{std::move(memory)}, code{ram} {
    cpu.ram = &ram;
    cpu.bus = &bus;
    cpu.code = &code;
    mmu_create(cpu);
    code.add_vcpu(&cpu);
    cpu.set_rflags_raw(2);
    for (Segment& s : cpu.seg) s = flat(0xc093);
    update_mode(cpu);
  }
  ~BareVm() { mmu_destroy(cpu); }

  static Segment flat(u16 attr) {
    Segment s;
    s.selector = 8;
    s.attr = attr;
    s.limit = 0xffffffff;
    s.usable = true;
    return s;
  }
  Segment& seg(Seg s) { return cpu.segment(s); }

  template <class T>
  T& at(u64 gpa) {
    return *reinterpret_cast<T*>(ram.host(Gpa{gpa}));
  }
  template <class T>
  T get(u64 gpa) {  // at any alignment
    T v;
    std::memcpy(&v, ram.host(Gpa{gpa}), sizeof v);
    return v;
  }
  template <class T>
  void put(u64 gpa, T v) {
    std::memcpy(ram.host(Gpa{gpa}), &v, sizeof v);
  }
  u64 new_table() {
    const u64 t = next_table;
    next_table += kPageSize;
    return t;
  }

  // -- Modes: paging on, tables empty, CPL 0
  void enter_long64() {
    seg(Seg::cs) = flat(0xa09b);
    cpu.efer = efer::lme | efer::lma | efer::nxe;
    cpu.cr4 = cr4::pae | cr4::pge;
    cpu.cr3 = new_table();
    paging_on();
  }
  void enter_pae() {
    seg(Seg::cs) = flat(0xc09b);
    cpu.efer = efer::nxe;
    cpu.cr4 = cr4::pae | cr4::pge;
    cpu.cr3 = new_table();
    paging_on();
  }
  void enter_32() {
    seg(Seg::cs) = flat(0xc09b);
    cpu.cr4 = cr4::pse | cr4::pge;
    cpu.cr3 = new_table();
    paging_on();
  }
  void paging_on() {
    cpu.cr0 = cr0::pe | cr0::pg | cr0::wp | cr0::et | cr0::ne;
    tlb_flush_all(cpu);
    update_mode(cpu);
  }
  void set_cpl(u8 cpl) {
    cpu.cpl = cpl;
    update_mode(cpu);
  }
  void set_flag(u32 f, bool on) {
    cpu.sys_flags = on ? cpu.sys_flags | f : cpu.sys_flags & ~f;
    update_mode(cpu);
  }

  // -- Tables
  // 4-level: the address of the entry for `linear` at `level` (0: page table .. 3: PML4), making tables above it.
  u64 entry64(u64 linear, int level) {
    u64 table = cpu.cr3 & ~u64{0xfff};
    for (int l = 3;; l--) {
      const u64 e = table + (linear >> (12 + 9 * l) & 511) * 8;
      if (l == level) return e;
      if (!(at<u64>(e) & pte::p)) at<u64>(e) = new_table() | pte::p | pte::w | pte::u;
      table = at<u64>(e) & 0x000ffffffffff000;
    }
  }
  u64& map64(u64 linear, u64 gpa, u64 bits, int level = 0) {
    u64& e = at<u64>(entry64(linear, level));
    e = gpa | bits | (level ? pte::ps : 0);
    return e;
  }
  // PAE. Top entries are loaded at once, as MOV CR3 would.
  u64& map_pae(u32 linear, u64 gpa, u64 bits, int level = 0) {
    u64& top = at<u64>(cpu.cr3 + (linear >> 30) * 8);
    if (!(top & pte::p)) top = new_table() | pte::p;
    cpu.pdpte[linear >> 30] = top;
    u64* e = &at<u64>((top & ~u64{0xfff}) + (linear >> 21 & 511) * 8);
    if (level == 0) {
      if (!(*e & pte::p)) *e = new_table() | pte::p | pte::w | pte::u;
      e = &at<u64>((*e & ~u64{0xfff}) + (linear >> 12 & 511) * 8);
    }
    *e = gpa | bits | (level ? pte::ps : 0);
    return *e;
  }
  u32& map_32(u32 linear, u32 gpa, u32 bits, int level = 0) {
    u32* e = &at<u32>(cpu.cr3 + (linear >> 22) * 4);
    if (level == 0) {
      if (!(*e & pte::p)) *e = static_cast<u32>(new_table() | pte::p | pte::w | pte::u);
      e = &at<u32>((*e & ~0xfffu) + (linear >> 12 & 1023) * 4);
    }
    *e = gpa | bits | (level ? static_cast<u32>(pte::ps) : 0);
    return *e;
  }

  // -- Accesses: what the guest would see
  template <class T>
  bool load(u64 linear, T* out, Seg s = Seg::ds) {
    return read(cpu, s, linear, *out);
  }
  template <class T>
  bool store(u64 linear, T value, Seg s = Seg::ds) {
    return write(cpu, s, linear, value);
  }
  // "ok", or the fault: "#PF(7) at 0x1000", "#GP(0)".
  std::string outcome(bool ok) const {
    if (ok) return "ok";
    const char* name = cpu.fault.vector == Vector::pf   ? "#PF"
                       : cpu.fault.vector == Vector::gp ? "#GP"
                       : cpu.fault.vector == Vector::ss ? "#SS"
                       : cpu.fault.vector == Vector::ac ? "#AC"
                       : cpu.fault.vector == Vector::ud ? "#UD"
                       : cpu.fault.vector == Vector::db ? "#DB"
                                                        : "#other";
    std::string text = fmt::format("{}({:#x})", name, cpu.fault.error);
    if (cpu.fault.vector == Vector::pf) text += fmt::format(" at {:#x}", cpu.fault.cr2);
    return text;
  }
  std::string try_read(u64 linear) {
    u8 b;
    return outcome(load(linear, &b));
  }
  std::string try_write(u64 linear) { return outcome(store<u8>(linear, 0x5a)); }
  std::string try_fetch(u64 linear) { return outcome(fetch_lookup(cpu, Gva{linear}) != nullptr); }

  // One instruction by its bytes; RIP is not advanced.
  Outcome execute(const std::vector<u8>& b) {
    isa::Insn insn;
    if (isa::decode(b.data(), b.size(), cpu.code_size(), cpu.vendor(), insn) != isa::DecodeStatus::ok)
      return cpu.raise_ud();
    const Semantic semantic = find_semantic(insn);
    if (!semantic) return cpu.raise_ud();
    return semantic(cpu, insn);
  }
  std::string run(const std::vector<u8>& bytes) {
    switch (execute(bytes)) {
      case Outcome::fault:
        return outcome(false);
      case Outcome::halt:
        return "halt";
      case Outcome::repeat:
        return "repeat";
      default:
        return "ok";
    }
  }
};

}  // namespace trapline::cpu::test
