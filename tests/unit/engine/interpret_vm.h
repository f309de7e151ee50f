// One vCPU with 16 MiB of RAM and the interpreter, in a mode of choice. Programs start at kCode and end with HLT; an
// exception of vector v ends in a HLT at kHandlers + 16 * v with the error code on the stack.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <initializer_list>
#include <vector>

#include "cpu/code_map.h"
#include "cpu/fpu.h"
#include "cpu/mmu.h"
#include "engine/emit/code_arena.h"
#include "engine/interpret/interpreter.h"

namespace trapline::engine::test {

using namespace cpu;

struct FakeBus : Bus {
  u32 port_read(Vcpu&, u16, unsigned) override { return ~0u; }
  void port_write(Vcpu&, u16 port, unsigned, u32 value) override { written.push_back({port, value}); }
  u64 mmio_read(Vcpu& cpu, Gpa gpa, unsigned size) override {
    mmio_rip = cpu.rip;
    mmio_retired = cpu.retired;
    return gpa.raw << 8 | size;
  }
  void mmio_write(Vcpu& cpu, Gpa gpa, unsigned size, u64 value) override {
    mmio_rip = cpu.rip;
    mmio_retired = cpu.retired;
    stored.push_back({gpa.raw, size, value});
  }
  u8 pic_acknowledge(Vcpu&) override { return 0x20; }
  void ioapic_eoi(Vcpu&, u8) override {}
  void numeric_error(Vcpu&) override {
    numeric_errors++;
    if (on_numeric_error) on_numeric_error();
  }
  struct Out {
    u16 port;
    u32 value;
  };
  struct Store {
    u64 gpa;
    unsigned size;
    u64 value;
  };
  std::vector<Out> written;
  std::vector<Store> stored;
  u64 mmio_rip = 0, mmio_retired = 0;
  int numeric_errors = 0;
  std::function<void()> on_numeric_error;
};

enum class Start { real16, flat32, long64 };

struct InterpretVm {
  static constexpr u64 kCode = 0x10000, kHandlers = 0x3000, kStack = 0x80000, kData = 0x200000, kIdt = 0x2000,
                       kTables = 0x90000;

  GuestMemory ram = std::move(*GuestMemory::anonymous(16 * MiB));
  CodeMap map{ram};
  Cpuid cpuid = std::move(*Cpuid::make({}));
  FakeBus bus;
  Clock clock;
  CodeArena arena{4 * MiB};
  Vcpu cpu;
  std::unique_ptr<Engine> engine;

  explicit InterpretVm(Start start) {
    cpu.ram = &ram;
    cpu.ram_base = ram.base();
    cpu.code = &map;
    cpu.cpuid = &cpuid;
    cpu.bus = &bus;
    cpu.clock = &clock;
    clock.instructions = true;
    mmu_create(cpu);
    map.add_vcpu(&cpu);
    reset(cpu, false);
    start == Start::real16 ? begin_real() : start == Start::flat32 ? begin_flat32() : begin_long();
    update_mode(cpu);
    tlb_flush_all(cpu);
    cpu.rip = kCode;
    if (start == Start::real16) cpu.rip = 0;
    cpu.gpr[isa::rsp] = start == Start::real16 ? 0x8000 : kStack;
    engine = make_interpreter(cpu, arena);
  }
  ~InterpretVm() {
    engine.reset();
    mmu_destroy(cpu);
  }

  template <class T>
  T& at(u64 gpa) {
    return *reinterpret_cast<T*>(ram.host(Gpa{gpa}));
  }
  template <class T>
  void put(u64 gpa, T v) {  // at any alignment
    std::memcpy(ram.host(Gpa{gpa}), &v, sizeof v);
  }
  void put(u64 gpa, std::initializer_list<int> bytes) {
    for (const int b : bytes) at<u8>(gpa++) = static_cast<u8>(b);
  }
  Exit run(u64 budget = 1'000'000) { return engine->run(cpu, budget); }
  Exit run(std::initializer_list<int> bytes) {
    put(kCode, bytes);
    return run();
  }
  // The vector whose handler the vCPU halted in, or -1.
  int vector() const {
    const u64 place = cpu.rip - 1 - kHandlers;
    return place < 32 * 16 && place % 16 == 0 ? static_cast<int>(place / 16) : -1;
  }
  Segment& seg(Seg s) { return cpu.segment(s); }
  u64& reg(unsigned r) { return cpu.gpr[r]; }
  // 64-bit mode: unmaps (or maps read-only) the 4 KiB page of the 2 MiB at 4 MiB.
  void set_page(u64 gva, u64 entry) {
    at<u64>(kTables + 0x3000 + (gva >> 12 & 511) * 8) = entry;
    tlb_flush_all(cpu);
  }

 private:
  void data_segments(u64 base, u32 limit, u16 attr) {
    for (const Seg s : {Seg::es, Seg::ss, Seg::ds, Seg::fs, Seg::gs}) load(s, 0x10, base, limit, attr);
  }
  void load(Seg s, u16 selector, u64 base, u32 limit, u16 attr) {
    Segment& out = seg(s);
    out.selector = selector;
    out.base = base;
    out.limit = limit;
    out.attr = attr;
    out.usable = true;
  }
  void gdt() {
    at<u64>(0x1008) = 0x00af9b000000ffff;  // 64-bit code
    at<u64>(0x1010) = 0x00cf93000000ffff;  // data
    at<u64>(0x1018) = 0x00cf9b000000ffff;  // 32-bit code
    cpu.gdtr = {0x1000, 0x1f};
  }
  void handlers(u16 selector, bool wide) {
    for (unsigned v = 0; v < 32; v++) {
      at<u8>(kHandlers + 16 * v) = 0xf4;
      at<u64>(kIdt + v * (wide ? 16u : 8u)) = (kHandlers + 16 * v) | u64{selector} << 16 | u64{0x8e00} << 32;
    }
    cpu.idtr = {kIdt, 0xfff};
  }
  void begin_real() {
    load(Seg::cs, kCode >> 4, kCode, 0xffff, 0x9b);
    data_segments(0, 0xffff, 0x93);
    for (unsigned v = 0; v < 32; v++) {
      at<u8>(kHandlers + 16 * v) = 0xf4;
      at<u32>(v * 4) = static_cast<u32>(kHandlers + 16 * v);
    }
    cpu.idtr = {0, 0x3ff};
  }
  void begin_flat32() {
    gdt();
    cpu.cr0 |= cr0::pe;
    load(Seg::cs, 0x18, 0, 0xffffffff, 0xc09b);
    data_segments(0, 0xffffffff, 0xc093);
    handlers(0x18, false);
  }
  void begin_long() {
    gdt();
    at<u64>(kTables) = (kTables + 0x1000) | 3;
    at<u64>(kTables + 0x1000) = (kTables + 0x2000) | 3;
    for (u64 i = 0; i < 512; i++) at<u64>(kTables + 0x2000 + i * 8) = i * 0x200000 | 0x83;
    at<u64>(kTables + 0x2000 + 2 * 8) = (kTables + 0x3000) | 3;  // 4..6 MiB in small pages
    for (u64 i = 0; i < 512; i++) at<u64>(kTables + 0x3000 + i * 8) = (0x400000 + i * 0x1000) | 3;
    cpu.cr0 |= cr0::pe | cr0::pg | cr0::wp | cr0::ne;
    cpu.cr3 = kTables;
    cpu.cr4 = cr4::pae | cr4::osfxsr | cr4::osxmmexcpt;
    cpu.efer = efer::lme | efer::lma | efer::nxe;
    load(Seg::cs, 8, 0, 0xffffffff, 0xa09b);
    data_segments(0, 0xffffffff, 0xc093);
    handlers(8, true);
  }
};

}  // namespace trapline::engine::test
