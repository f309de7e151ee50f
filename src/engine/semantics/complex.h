// The instructions that need no handler of their own: plain functions on the full isa::Insn, called like semantics.
// They work for every mode and operand width. Convention as in cpu/semantics.h.
#pragma once

#include <optional>

#include "cpu/mmu.h"
#include "cpu/semantics.h"
#include "engine/semantics/flags.h"

namespace trapline::engine::semantics {

using cpu::Outcome;
using cpu::Seg;
using cpu::Vcpu;
using isa::Insn;
using isa::Operand;

// Does this VM's CPUID offer the instruction, as far as integer instructions depend on it?
bool offered(const Vcpu& cpu, const Insn& insn);
// Null: not known, or a feature that this VM's CPUID does not offer.
cpu::Semantic find_complex(const Vcpu& cpu, const Insn& insn);

// One per file.
cpu::Semantic find_complex_arithmetic(const Insn& insn);  // MUL, DIV, BCD, CRC32, ADX
cpu::Semantic find_complex_bits(const Insn& insn);        // BT* on memory, double shifts, BMI
cpu::Semantic find_complex_exchange(const Insn& insn);    // XCHG, XADD, CMPXCHG with memory
cpu::Semantic find_complex_stack(const Insn& insn);       // odd PUSH and POP, PUSHA, POPA, ENTER, LEAVE
cpu::Semantic find_complex_branch(const Insn& insn);      // near branches of 16 bits or in segmented code
cpu::Semantic find_complex_memory(const Insn& insn);      // XLAT, MOVBE, MOVNTI, MOVDIR
cpu::Semantic find_string(const Insn& insn);              // MOVS STOS LODS CMPS SCAS

// The condition code of a Jcc, or -1.
int condition_of(ZydisMnemonic mnemonic);

inline u64 offset_of(const Vcpu& cpu, const Insn& insn) {
  return cpu::effective_address(cpu, insn.mem, cpu.rip + insn.length);
}
inline bool is_mem(const Operand& op) { return op.kind == Operand::Kind::mem; }

template <class T>
inline T low(const Vcpu& cpu, unsigned reg) {
  return static_cast<T>(cpu.gpr[reg]);
}
// Writes of 32 bits zero the upper half, smaller ones merge.
template <class T>
inline void set_low(Vcpu& cpu, unsigned reg, T value) {
  if constexpr (sizeof(T) >= 4)
    cpu.gpr[reg] = value;
  else
    cpu.gpr[reg] = (cpu.gpr[reg] & ~u64{static_cast<T>(~T{0})}) | value;
}

// Replaces the T at seg:offset by fn(T), once; locked: atomically (then fn may be called several times). False: fault.
template <class T, class Fn>
bool modify_memory(Vcpu& cpu, Seg seg, u64 offset, bool lock, Fn fn) {
  Gva linear;
  if (!cpu::to_linear(cpu, seg, offset, sizeof(T), cpu::Access::rmw, linear)) return false;
  u8* p = cpu::tlb_lookup(cpu, linear, sizeof(T), cpu.need_write);
  if (!p) {
    bool faulted = false;
    p = cpu::rmw_slow(cpu, seg, linear, sizeof(T), &faulted);
    if (faulted) return false;
  }
  if (p) {
    T* const cell = reinterpret_cast<T*>(p);
    T old = __atomic_load_n(cell, __ATOMIC_RELAXED);
    if (!lock) {
      __atomic_store_n(cell, fn(old), __ATOMIC_RELAXED);
      return true;
    }
    while (!cpu::compare_exchange(cell, &old, static_cast<T>(fn(old)))) {
    }
    return true;
  }
  std::optional<cpu::SplitLock> guard;
  if (lock) guard.emplace(cpu);
  for (bool stored = false; !stored;) {
    T old;
    if (!cpu::read_slow(cpu, seg, linear, &old, sizeof old)) return false;
    const T now = fn(old);
    if (!lock) return cpu::write_slow(cpu, seg, linear, &now, sizeof now);
    if (!cpu::replace_slow(cpu, seg, linear, &old, &now, sizeof now, &stored)) return false;
  }
  return true;
}

// Calls fn with a zero of the type that is `bytes` wide.
template <class Fn>
inline Outcome by_width(unsigned bytes, Fn fn) {
  switch (bytes) {
    case 1:
      return fn(u8{});
    case 2:
      return fn(u16{});
    case 4:
      return fn(u32{});
    default:
      return fn(u64{});
  }
}

}  // namespace trapline::engine::semantics
