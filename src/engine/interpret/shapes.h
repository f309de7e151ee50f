// Handlers for "destination = operation(destination, source)" in every shape of operands, and the choice among them.
#pragma once

#include <optional>

#include "engine/interpret/address.h"
#include "engine/semantics/flags.h"

namespace trapline::engine::interpret {

using namespace semantics;

enum class Shape : u8 { reg_reg, reg_imm, reg_mem, mem_reg, mem_imm };

template <class F, class T>
inline T compute(u16& f, T a, T b) {
  return F::template apply<T>(f, a, b);
}
template <class F>
inline u16 flags_in(Vcpu& cpu) {
  return F::reads ? cpu.arith : u16{0};
}
template <class F, class T>
inline void finish(Vcpu& cpu, u8 dst, u16 f, T value) {
  if constexpr (F::flags) cpu.arith = f;
  if constexpr (F::writes) set<T>(cpu, dst, value);
}

template <class F, class T>
const Op* reg_reg(Vcpu& cpu, const Op* op) {
  u16 f = flags_in<F>(cpu);
  const T r = compute<F, T>(f, get<T>(cpu, op->dst), get<T>(cpu, op->src));
  finish<F, T>(cpu, op->dst, f, r);
  TRAPLINE_NEXT(cpu, op);
}

template <class F, class T>
const Op* reg_imm(Vcpu& cpu, const Op* op) {
  u16 f = flags_in<F>(cpu);
  const T r = compute<F, T>(f, get<T>(cpu, op->dst), static_cast<T>(op->imm));
  finish<F, T>(cpu, op->dst, f, r);
  TRAPLINE_NEXT(cpu, op);
}

// destination = operation(source, immediate): IMUL with three operands
template <class F, class T>
const Op* reg_reg_imm(Vcpu& cpu, const Op* op) {
  u16 f = flags_in<F>(cpu);
  const T r = compute<F, T>(f, get<T>(cpu, op->src), static_cast<T>(op->imm));
  finish<F, T>(cpu, op->dst, f, r);
  TRAPLINE_NEXT(cpu, op);
}

template <class F, class T>
[[gnu::cold, gnu::noinline]] const Op* reg_mem_slow(Vcpu& cpu, const Op* op) {
  const Loaded b = load_slow(cpu, op, sizeof(T));
  if (!b.ok) return fault_at(cpu, op);
  u16 f = flags_in<F>(cpu);
  const T r = compute<F, T>(f, get<T>(cpu, op->dst), static_cast<T>(b.value));
  finish<F, T>(cpu, op->dst, f, r);
  if (must_leave(cpu, op)) return leave_after(cpu, op);
  TRAPLINE_NEXT(cpu, op);
}

template <class F, class T, Address A>
const Op* reg_mem(Vcpu& cpu, const Op* op) {
  const u8* p = reach<A, false>(cpu, op, sizeof(T));
  if (!p) [[unlikely]]
    return reg_mem_slow<F, T>(cpu, op);
  u16 f = flags_in<F>(cpu);
  const T r = compute<F, T>(f, get<T>(cpu, op->dst), load<T>(p));
  finish<F, T>(cpu, op->dst, f, r);
  TRAPLINE_NEXT(cpu, op);
}

// On plain RAM. A locked one retries until nobody wrote in between.
template <class F, class T, bool Locked>
inline void modify(Vcpu& cpu, u8* p, T b) {
  const u16 before = flags_in<F>(cpu);
  u16 f = before;
  if constexpr (Locked) {
    T* const cell = reinterpret_cast<T*>(p);
    T old = __atomic_load_n(cell, __ATOMIC_RELAXED), now;
    do {
      f = before;
      now = compute<F, T>(f, old, b);
    } while (!cpu::compare_exchange(cell, &old, now));
  } else {
    store<T>(p, compute<F, T>(f, load<T>(p), b));
  }
  if constexpr (F::flags) cpu.arith = f;
}

template <class F, class T, bool Imm>
inline T source(Vcpu& cpu, const Op* op) {
  return Imm ? static_cast<T>(op->imm) : get<T>(cpu, op->src);
}

template <class F, class T, bool Imm>
[[gnu::cold, gnu::noinline]] const Op* compare_slow(Vcpu& cpu, const Op* op) {
  const Loaded a = load_slow(cpu, op, sizeof(T));
  if (!a.ok) return fault_at(cpu, op);
  u16 f = flags_in<F>(cpu);
  (void)compute<F, T>(f, static_cast<T>(a.value), source<F, T, Imm>(cpu, op));
  cpu.arith = f;
  if (must_leave(cpu, op)) return leave_after(cpu, op);
  TRAPLINE_NEXT(cpu, op);
}

// Across pages, on code pages, on device memory. The lock ends here, before the next op runs.
template <class F, class T, bool Locked>
[[gnu::cold, gnu::noinline]] bool modify_piecewise(Vcpu& cpu, const Op* op, Target t, T b) {
  std::optional<cpu::SplitLock> lock;
  if constexpr (Locked) lock.emplace(cpu);
  u16 f = 0;
  for (bool stored = false; !stored;) {
    const Loaded a = target_load(cpu, op, t, sizeof(T));
    if (!a.ok) return false;
    f = flags_in<F>(cpu);
    const T r = compute<F, T>(f, static_cast<T>(a.value), b);
    stored = !Locked;
    if (!(Locked ? target_replace(cpu, op, t, a.value, r, sizeof(T), &stored) : target_store(cpu, op, t, r, sizeof(T))))
      return false;
  }
  if constexpr (F::flags) cpu.arith = f;
  return true;
}

template <class F, class T, bool Imm, bool Locked>
[[gnu::cold, gnu::noinline]] const Op* modify_slow(Vcpu& cpu, const Op* op) {
  const Target t = rmw_target(cpu, op, sizeof(T));
  if (!t.ok) return fault_at(cpu, op);
  const T b = source<F, T, Imm>(cpu, op);
  if (t.host) {
    modify<F, T, Locked>(cpu, t.host, b);
  } else if (!modify_piecewise<F, T, Locked>(cpu, op, t, b)) {
    return fault_at(cpu, op);
  }
  if (must_leave(cpu, op)) return leave_after(cpu, op);
  TRAPLINE_NEXT(cpu, op);
}

template <class F, class T, bool Imm, bool Locked, Address A>
const Op* mem_any(Vcpu& cpu, const Op* op) {
  if constexpr (F::writes) {
    u8* p = reach<A, true>(cpu, op, sizeof(T));
    if (!p) [[unlikely]]
      return modify_slow<F, T, Imm, Locked>(cpu, op);
    modify<F, T, Locked>(cpu, p, source<F, T, Imm>(cpu, op));
  } else {
    const u8* p = reach<A, false>(cpu, op, sizeof(T));
    if (!p) [[unlikely]]
      return compare_slow<F, T, Imm>(cpu, op);
    u16 f = flags_in<F>(cpu);
    (void)compute<F, T>(f, load<T>(p), source<F, T, Imm>(cpu, op));
    cpu.arith = f;
  }
  TRAPLINE_NEXT(cpu, op);
}

// -- Choice
template <class F, class T, bool Imm, bool Locked>
Handler choose_mem(Address a) {
  if constexpr (Locked) return mem_any<F, T, Imm, true, Address::any>;
  switch (a) {
    case Address::base64:
      return mem_any<F, T, Imm, Locked, Address::base64>;
    case Address::index64:
      return mem_any<F, T, Imm, Locked, Address::index64>;
    case Address::flat32:
      return mem_any<F, T, Imm, Locked, Address::flat32>;
    default:
      return mem_any<F, T, Imm, Locked, Address::any>;
  }
}
template <class F, class T>
Handler choose_reg_mem(Address a) {
  switch (a) {
    case Address::base64:
      return reg_mem<F, T, Address::base64>;
    case Address::index64:
      return reg_mem<F, T, Address::index64>;
    case Address::flat32:
      return reg_mem<F, T, Address::flat32>;
    default:
      return reg_mem<F, T, Address::any>;
  }
}

// What build.cpp knows about an instruction that looks like a plain binary operation.
struct Form {
  Shape shape;
  unsigned bytes;  // operand width
  Address address;
  bool lock;
};

template <class F, class T>
Handler choose_sized(const Form& form) {
  switch (form.shape) {
    case Shape::reg_reg:
      return reg_reg<F, T>;
    case Shape::reg_imm:
      return reg_imm<F, T>;
    case Shape::reg_mem:
      return choose_reg_mem<F, T>(form.address);
    case Shape::mem_reg:
      if constexpr (F::writes && F::lockable)
        if (form.lock) return choose_mem<F, T, false, true>(form.address);
      return choose_mem<F, T, false, false>(form.address);
    default:
      if constexpr (F::writes && F::lockable)
        if (form.lock) return choose_mem<F, T, true, true>(form.address);
      return choose_mem<F, T, true, false>(form.address);
  }
}
template <class F>
Handler choose(const Form& form) {
  switch (form.bytes) {
    case 1:
      return choose_sized<F, u8>(form);
    case 2:
      return choose_sized<F, u16>(form);
    case 4:
      return choose_sized<F, u32>(form);
    case 8:
      return choose_sized<F, u64>(form);
    default:
      return nullptr;
  }
}

// Each file of operations answers for its mnemonics; null: not mine.
Handler choose_alu(const Insn& insn, const Form& form);
Handler choose_shift(const Insn& insn, const Form& form);
Handler choose_bits(const Insn& insn, const Form& form);  // bit tests, scans and counts, IMUL, CMOVcc
Handler choose_move(const Insn& insn,
                    const Form& form);  // MOV, MOVZX, MOVSX, LEA, XCHG of registers, SETcc, BSWAP, CBW..CQO, NOP
Handler choose_stack(const Insn& insn, const Form& form, u32 key);  // PUSH, POP, LEAVE in the common widths

}  // namespace trapline::engine::interpret
