// Running a thunk, and the address of its memory operand: what execute.cpp and masked.cpp share.
#pragma once

#include "cpu/mmu.h"
#include "cpu/semantics.h"
#include "engine/vector/op.h"
#include "engine/vector/vector_unit.h"

namespace trapline::engine::vector {

// Offset in the segment of insn.mem (for VSIB: without the index).
inline u64 effective(const cpu::Vcpu& cpu, const isa::Insn& insn) {
  const isa::MemOperand& m = insn.mem;
  u64 a = m.base == isa::kRegRip ? cpu.rip + insn.length : cpu.gpr[m.base > 15 ? 16 : m.base];
  if (!m.vsib) a += cpu.gpr[m.index > 15 ? 16 : m.index] << m.scale_log2;
  a += static_cast<u64>(m.disp);
  return m.address_bytes == 8 ? a : m.address_bytes == 4 ? a & 0xffffffff : a & 0xffff;
}

// Non-canonical addresses fault in their own way.
inline bool in_reach(const cpu::Vcpu& cpu, Gva linear) { return !cpu.in_long64() || cpu::canonical(linear); }

inline bool amd(const cpu::Vcpu& cpu) { return cpu.vendor() == isa::Vendor::amd; }

// #AC of vector operands beyond what the MMU checks by size. Intel: none of 16 bytes and more (SDM Vol. 3A table 6-7),
// nor those of the half-precision conversions. AMD: all, to at most 16 bytes (APM Vol. 2 8.2.18).
bool vector_aligned(cpu::Vcpu& cpu, const isa::Insn& insn, Gva linear, unsigned size);  // false: cpu.fault set

// Intel's processors do not check VCVTPH2PS and VCVTPS2PH for alignment, whatever their operand's size.
inline bool is_half_conversion(const isa::Insn& insn) {
  return insn.mnemonic == ZYDIS_MNEMONIC_VCVTPH2PS || insn.mnemonic == ZYDIS_MNEMONIC_VCVTPS2PH;
}

// With the guest's MXCSR in the host's, unmasked exceptions and all. Not inline: the other path is the hot one.
cpu::Outcome run_with_mxcsr(cpu::Vcpu& cpu, const VectorOp& op, void* memory);
// The thunk was ended by a signal.
cpu::Outcome trapped(cpu::Vcpu& cpu, u64 cause);

// By way of a number: a cast from const data to a function is none that C++ knows.
inline Thunk thunk_of(const VectorOp& op) { return reinterpret_cast<Thunk>(reinterpret_cast<u64>(op.thunk)); }

inline cpu::Outcome run(cpu::Vcpu& cpu, const VectorOp& op, void* memory) {
  if (op.flags & flag::mxcsr) return run_with_mxcsr(cpu, op, memory);
  const u64 cause = thunk_of(op)(&cpu, memory);
  return cause == 0 ? cpu::Outcome::next : trapped(cpu, cause);
}

// Kinds whose memory accesses depend on a mask (masked.cpp).
cpu::Outcome execute_masked(cpu::Vcpu& cpu, const isa::Insn& insn, const VectorOp& op);
cpu::Outcome execute_gather(cpu::Vcpu& cpu, const isa::Insn& insn, const VectorOp& op);
cpu::Outcome execute_scatter(cpu::Vcpu& cpu, const isa::Insn& insn, const VectorOp& op);

}  // namespace trapline::engine::vector
