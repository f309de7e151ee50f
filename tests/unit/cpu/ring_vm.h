// A machine with a GDT, an IDT and a TSS, in legacy protected or 64-bit mode, for tests of what crosses segments and
// rings.
#pragma once

#include <string>

#include "bare_vm.h"
#include "cpu/descriptor.h"
#include "cpu/events.h"

namespace trapline::cpu::test {

// Selectors of the GDT. Task segments and gates leave room for 16-byte descriptors.
namespace sel {
constexpr u16 code0 = 0x08, data0 = 0x10, code64_0 = 0x18, code64_3 = 0x20 | 3, data3 = 0x28 | 3, code3 = 0x30 | 3,
              tss = 0x38, tss2 = 0x48, tss16 = 0x58, conforming = 0x60, gate = 0x68, ldt = 0x78, absent = 0x88,
              task_gate = 0x90, read_only = 0x98, execute_only = 0xa0, code16 = 0xa8, data16 = 0xb0, small = 0xb8,
              end = 0xc0;
}

struct RingVm : BareVm {
  static constexpr u64 kGdt = 0x1000, kIdt = 0x2000, kTss = 0x4000, kTss2 = 0x5000, kTss16 = 0x6000, kLdt = 0x7000;
  static constexpr u32 kHandlers = 0x20000;  // of vector v: kHandlers + v * 16
  static constexpr u64 kStack0 = 0x30000, kStack3 = 0x40000, kIst1 = 0x50000;

  static u64 descriptor(u32 base, u32 limit, u16 attr) {
    const u64 low = (limit & 0xffff) | u64{base & 0xffff} << 16;
    const u64 high = (base >> 16 & 0xff) | (attr & 0xf0ffu) << 8 | (limit & 0xf0000) | (base & 0xff000000);
    return low | high << 32;
  }
  static u64 gate_descriptor(u16 selector, u32 offset, u16 attr, u8 low_byte = 0) {
    const u64 high = (offset & 0xffff0000) | (attr & 0xffu) << 8 | low_byte;
    return (offset & 0xffff) | u64{selector} << 16 | high << 32;
  }
  void set(u16 selector, u64 raw) { at<u64>(kGdt + (selector & 0xfff8)) = raw; }
  u8 access(u16 selector) { return at<u8>(kGdt + (selector & 0xfff8) + 5); }  // type, S, DPL, P

  explicit RingVm(bool is_long) {
    cpu.clock = &clock;
    cpu.gdtr = {kGdt, sel::end - 1};
    cpu.idtr = {kIdt, 0xfff};
    set(sel::code0, descriptor(0, 0xfffff, 0xc09a));
    set(sel::data0, descriptor(0, 0xfffff, 0xc092));
    set(sel::code64_0, descriptor(0, 0xfffff, 0xa09a));
    set(sel::code64_3, descriptor(0, 0xfffff, 0xa0fa));
    set(sel::data3, descriptor(0, 0xfffff, 0xc0f2));
    set(sel::code3, descriptor(0, 0xfffff, 0xc0fa));
    set(sel::conforming, descriptor(0, 0xfffff, is_long ? 0xa09e : 0xc09e));
    set(sel::absent, descriptor(0, 0xfffff, 0xc012));
    set(sel::read_only, descriptor(0, 0xfffff, 0xc0f0));
    set(sel::execute_only, descriptor(0, 0xfffff, 0xc0f8));
    set(sel::code16, descriptor(0, 0xffff, 0x009a));
    set(sel::data16, descriptor(0, 0xffff, 0x0092));
    set(sel::small, descriptor(0x8000, 0xff, 0x4092));
    set(sel::tss, descriptor(kTss, 0xfff, 0x008b));
    set(sel::ldt, descriptor(kLdt, 0xff, 0x0082));
    cpu.tr = segment(sel::tss, kTss, 0xfff, 0x8b);
    cpu.ldtr = null_segment(0);
    is_long ? start_long() : start_protected();
  }

  static Segment segment(u16 selector, u64 base, u32 limit, u16 attr) {
    Segment s;
    s.selector = selector;
    s.base = s.linear_base = base;
    s.limit = limit;
    s.attr = attr;
    s.usable = true;
    return s;
  }
  void put_segment(Seg s, u16 selector, u16 attr) { seg(s) = segment(selector, 0, 0xffffffff, attr); }
  void put_data_segments(u16 selector, u16 attr) {
    for (const Seg s : {Seg::ss, Seg::ds, Seg::es, Seg::fs, Seg::gs}) put_segment(s, selector, attr);
  }

  void start_protected() {
    cpu.cr0 = cr0::pe | cr0::et | cr0::ne;
    at<u32>(kTss + 4) = kStack0;
    at<u16>(kTss + 8) = sel::data0;
    for (unsigned v = 0; v < 256; v++) at<u64>(kIdt + 8 * v) = gate_descriptor(sel::code0, kHandlers + 16 * v, 0x8e);
    ring0();
  }
  // Identity map of the RAM in 2 MiB pages, for all rings.
  void start_long() {
    enter_long64();
    for (u64 a = 0; a < 16 * MiB; a += 2 * MiB) map64(a, a, pte::p | pte::w | pte::u, 1);
    put<u64>(kTss + 4, kStack0);
    put<u64>(kTss + 0x24, kIst1);
    for (unsigned v = 0; v < 256; v++) set_long_gate(v, gate_descriptor(sel::code64_0, kHandlers + 16 * v, 0x8e));
    ring0();
  }
  void set_long_gate(unsigned vector, u64 low, u64 high = 0) {
    at<u64>(kIdt + 16 * vector) = low;
    at<u64>(kIdt + 16 * vector + 8) = high;
  }
  void ring0() {
    const bool is_long = cpu.long_mode_active();
    put_segment(Seg::cs, is_long ? sel::code64_0 : sel::code0, is_long ? 0xa09b : 0xc09b);
    put_data_segments(sel::data0, 0xc093);
    cpu.gpr[isa::rsp] = kStack0;
    cpu.rip = 0x10000;
    set_cpl(0);
  }
  void ring3() {
    const bool is_long = cpu.long_mode_active();
    put_segment(Seg::cs, is_long ? sel::code64_3 : sel::code3, is_long ? 0xa0fb : 0xc0fb);
    put_data_segments(sel::data3, 0xc0f3);
    cpu.gpr[isa::rsp] = kStack3;
    cpu.rip = 0x10000;
    set_cpl(3);
  }
  void vm86(unsigned iopl = 3) {
    for (unsigned i = 0; i < 6; i++) cpu.seg[i] = vm86_segment(static_cast<u16>(0x1000 + 0x100 * i));
    cpu.gpr[isa::rsp] = 0x800;
    cpu.rip = 0x100;
    cpu.set_rflags_raw(2 | flag::vm | flag::if_ | iopl << 12);
    set_cpl(3);
  }

  template <class T = u32>
  T stack(unsigned item) {
    return at<T>(seg(Seg::ss).linear_base + cpu.gpr[isa::rsp] + item * sizeof(T));
  }
  u64 rsp() const { return cpu.gpr[isa::rsp]; }
  u16 selector(Seg s) { return seg(s).selector; }
  Outcome deliver(Vector v, u32 error = 0) {
    (void)cpu.raise(v, error);
    return deliver_fault(cpu);
  }
  // The vector whose handler RIP points at, -1 elsewhere.
  int handler() const {
    const u64 offset = cpu.rip - kHandlers;
    return offset < 256 * 16 && offset % 16 == 0 ? static_cast<int>(offset / 16) : -1;
  }
  // "#NP(0x88)", or "ok". For vectors that BareVm does not name.
  std::string fault_of(Outcome o) const {
    if (o != Outcome::fault) return "ok";
    return fmt::format("#{}({:#x})", static_cast<int>(cpu.fault.vector), cpu.fault.error);
  }
  std::string try_run(std::initializer_list<u8> bytes) { return fault_of(execute(bytes)); }

  Clock clock;
};

}  // namespace trapline::cpu::test
