// PUSH, POP and LEAVE where the stack is flat and as wide as the operand: 64-bit mode and flat 32-bit mode. Others:
// complex_stack.cpp.
#include "engine/interpret/shapes.h"

namespace trapline::engine::interpret {

namespace {

using Kind = isa::Operand::Kind;

// T is the operand and the stack width: u64 or u32.
template <class T>
inline u8* stack_at(Vcpu& cpu, T sp, u32 need) {
  return cpu::tlb_lookup(cpu, Gva{sp}, sizeof(T), need);
}

template <class T>
[[gnu::cold, gnu::noinline]] const Op* push_slowly(Vcpu& cpu, const Op* op, T value) {
  if (!push_slow(cpu, op, value, sizeof(T))) return fault_at(cpu, op);
  if (must_leave(cpu, op)) return leave_after(cpu, op);
  TRAPLINE_NEXT(cpu, op);
}
template <class T>
inline const Op* push_value(Vcpu& cpu, const Op* op, T value) {
  const T sp = static_cast<T>(get<T>(cpu, isa::rsp * 8) - sizeof(T));
  u8* p = stack_at<T>(cpu, sp, cpu.need_write);
  if (!p) [[unlikely]]
    return push_slowly<T>(cpu, op, value);
  store<T>(p, value);
  set<T>(cpu, isa::rsp * 8, sp);
  TRAPLINE_NEXT(cpu, op);
}
template <class T>
const Op* push_reg(Vcpu& cpu, const Op* op) {
  return push_value<T>(cpu, op, get<T>(cpu, op->dst));
}
template <class T>
const Op* push_imm(Vcpu& cpu, const Op* op) {
  return push_value<T>(cpu, op, static_cast<T>(op->imm));
}
template <class T>
[[gnu::cold, gnu::noinline]] const Op* push_mem_slowly(Vcpu& cpu, const Op* op) {
  const Loaded v = load_slow(cpu, op, sizeof(T));
  if (!v.ok) return fault_at(cpu, op);
  return push_slowly<T>(cpu, op, static_cast<T>(v.value));
}
template <class T>
const Op* push_mem(Vcpu& cpu, const Op* op) {
  const u8* p = reach<Address::any, false>(cpu, op, sizeof(T));
  if (!p) [[unlikely]]
    return push_mem_slowly<T>(cpu, op);
  return push_value<T>(cpu, op, load<T>(p));
}

template <class T>
[[gnu::cold, gnu::noinline]] const Op* pop_slowly(Vcpu& cpu, const Op* op) {
  const Loaded v = pop_slow(cpu, op, sizeof(T));
  if (!v.ok) return fault_at(cpu, op);
  set<T>(cpu, op->dst, static_cast<T>(v.value));
  if (must_leave(cpu, op)) return leave_after(cpu, op);
  TRAPLINE_NEXT(cpu, op);
}
template <class T>
const Op* pop_reg(Vcpu& cpu, const Op* op) {
  const T sp = get<T>(cpu, isa::rsp * 8);
  const u8* p = stack_at<T>(cpu, sp, cpu.need_read);
  if (!p) [[unlikely]]
    return pop_slowly<T>(cpu, op);
  const T value = load<T>(p);
  set<T>(cpu, isa::rsp * 8, static_cast<T>(sp + sizeof(T)));
  set<T>(cpu, op->dst, value);  // last: POP RSP keeps the value
  TRAPLINE_NEXT(cpu, op);
}

template <class T>
[[gnu::cold, gnu::noinline]] const Op* leave_slowly(Vcpu& cpu, const Op* op) {
  const u64 rsp = cpu.gpr[isa::rsp];
  set<T>(cpu, isa::rsp * 8, get<T>(cpu, isa::rbp * 8));
  const Loaded v = pop_slow(cpu, op, sizeof(T));
  if (!v.ok) {
    cpu.gpr[isa::rsp] = rsp;
    return fault_at(cpu, op);
  }
  set<T>(cpu, isa::rbp * 8, static_cast<T>(v.value));
  if (must_leave(cpu, op)) return leave_after(cpu, op);
  TRAPLINE_NEXT(cpu, op);
}
template <class T>
const Op* leave_frame(Vcpu& cpu, const Op* op) {
  const T sp = get<T>(cpu, isa::rbp * 8);
  const u8* p = stack_at<T>(cpu, sp, cpu.need_read);
  if (!p) [[unlikely]]
    return leave_slowly<T>(cpu, op);
  set<T>(cpu, isa::rbp * 8, load<T>(p));
  set<T>(cpu, isa::rsp * 8, static_cast<T>(sp + sizeof(T)));
  TRAPLINE_NEXT(cpu, op);
}

template <class T>
Handler choose_sized_stack(const Insn& insn) {
  switch (insn.mnemonic) {
    case ZYDIS_MNEMONIC_PUSH:
      if (insn.op[0].kind == Kind::gpr) return push_reg<T>;
      if (insn.op[0].kind == Kind::imm) return push_imm<T>;
      if (insn.op[0].kind == Kind::mem) return push_mem<T>;
      return nullptr;
    case ZYDIS_MNEMONIC_POP:
      return insn.op[0].kind == Kind::gpr ? pop_reg<T> : nullptr;
    case ZYDIS_MNEMONIC_LEAVE:
      return leave_frame<T>;
    default:
      return nullptr;
  }
}

}  // namespace

Handler choose_stack(const Insn& insn, const Form&, u32 key) {
  if ((key & key::size_mask) == 2) return insn.operand_bytes == 8 ? choose_sized_stack<u64>(insn) : nullptr;
  const bool flat = (key & key::flat_data) && (key & key::ss_big);
  return flat && insn.operand_bytes == 4 ? choose_sized_stack<u32>(insn) : nullptr;
}

}  // namespace trapline::engine::interpret
