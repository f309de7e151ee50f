// What far CALL, JMP, RET and IRET share. Intel SDM Vol. 2 (their pseudo-code), Vol. 3A 5.8.
#pragma once

#include "cpu/descriptor.h"
#include "cpu/semantics.h"
#include "cpu/stack.h"
#include "cpu/task_switch.h"

namespace trapline::cpu {

struct FarPointer {
  u16 selector = 0;
  u64 offset = 0;
};

inline u64 next_rip(const Vcpu& cpu, const isa::Insn& insn) {
  const u64 next = cpu.rip + insn.length;
  return cpu.in_long64() ? next : next & 0xffffffff;
}

// Segments by value (selector << 4): real-address and virtual-8086 mode.
inline bool real_segments(const Vcpu& cpu) { return cpu.mode == Mode::real || cpu.mode == Mode::vm86; }

// Loads CS as those modes do; the base follows the selector.
inline void load_real_cs(Vcpu& cpu, u16 selector) {
  if (cpu.mode == Mode::vm86)
    cs_of(cpu) = vm86_segment(selector);
  else
    load_real_segment(cs_of(cpu), selector);
}

// ptr16:16/32 in the instruction, or m16:16/32/64 (offset of insn.operand_bytes). False: cpu.fault set.
bool load_far_operand(Vcpu& cpu, const isa::Insn& insn, FarPointer& out);

// The code segment that RET or IRET returns to. False: cpu.fault set.
bool check_return_code(Vcpu& cpu, u16 selector, Descriptor& code);
// The stack segment of a return to privilege level `cpl`, in `code`'s mode.
bool check_return_stack(Vcpu& cpu, u16 selector, u8 cpl, const Descriptor& code, Segment& out);
// After a return to an outer level: data segments that it may not see become null.
void drop_inner_segments(Vcpu& cpu);
// RSP for stack segment `ss` of a 64-bit or other target: what the stack's width does not cover keeps its value.
u64 merged_rsp(const Vcpu& cpu, const Segment& ss, bool long_code, u64 rsp);

}  // namespace trapline::cpu
