// Near control flow in flat code segments, with operands as wide as the mode's addresses. Others: complex_branch.cpp.
#include "engine/interpret/branch.h"

#include "engine/interpret/chain.h"
#include "engine/interpret/shapes.h"
#include "engine/semantics/complex.h"

namespace trapline::engine::interpret {

namespace {

using Kind = isa::Operand::Kind;

// Op::imm: distance of the target; Op::disp: distance of the next instruction.
inline u64 next_distance(const Op* op) { return u64{op->at} + op->length; }

template <bool Cross>
const Op* fall_through(Vcpu& cpu, const Op* op) {  // a block ended by its length; not an instruction
  return chain<Cross>(cpu, op, 1, op->at);
}

template <bool Cross>
const Op* jmp_rel(Vcpu& cpu, const Op* op) {
  return chain<Cross>(cpu, op, 0, op->imm);
}

template <unsigned Cc, bool Cross>
const Op* jcc(Vcpu& cpu, const Op* op) {
  if (condition<Cc>(cpu.arith)) return chain<Cross>(cpu, op, 0, op->imm);
  return chain<Cross>(cpu, op, 1, next_distance(op));
}

// CMP or TEST and the Jcc after it, in one go: the branch keeps its own op, so that a fault or trace sees two
// instructions.
template <class F, class T, bool Imm, unsigned Cc, bool Cross>
const Op* fused_jcc(Vcpu& cpu, const Op* op) {
  u16 f = 0;
  (void)F::template apply<T>(f, get<T>(cpu, op->dst), source<F, T, Imm>(cpu, op));
  cpu.arith = f;
  op++;
  if (condition<Cc>(f)) return chain<Cross>(cpu, op, 0, op->imm);
  return chain<Cross>(cpu, op, 1, next_distance(op));
}

template <class T>
bool in_code(u64 target) {
  return sizeof(T) != 8 || canonical(target);
}

// -- CALL, RET
template <class T>
[[gnu::cold, gnu::noinline]] bool push_return_slowly(Vcpu& cpu, const Op* op, T rip) {
  if (!push_slow(cpu, op, rip, sizeof(T))) return false;
  if (must_leave(cpu, op)) run_of(cpu).limit = 0;
  return true;
}
template <class T>
[[gnu::always_inline]] inline bool push_return(Vcpu& cpu, const Op* op) {
  const T rip = static_cast<T>(cpu.rip + next_distance(op));
  const T sp = static_cast<T>(get<T>(cpu, isa::rsp * 8) - sizeof(T));
  u8* p = cpu::tlb_lookup(cpu, Gva{sp}, sizeof(T), cpu.need_write);
  if (!p) [[unlikely]]
    return push_return_slowly<T>(cpu, op, rip);
  store<T>(p, rip);
  set<T>(cpu, isa::rsp * 8, sp);
  return true;
}

// A target that is not canonical. Intel's processors write the return address before they look at it, and RSP goes
// back; AMD's write nothing, but a stack that would fault comes first.
template <class T>
[[gnu::cold, gnu::noinline]] const Op* call_nowhere(Vcpu& cpu, const Op* op) {
  const u64 rsp = cpu.gpr[isa::rsp];
  const bool writes = cpu.vendor() == isa::Vendor::intel;
  if (!(writes ? push_return<T>(cpu, op) : probe_push(cpu, op, sizeof(T)))) return fault_at(cpu, op);
  cpu.gpr[isa::rsp] = rsp;
  return raise_gp_at(cpu, op);
}
template <class T, bool Cross>
[[gnu::cold, gnu::noinline]] const Op* call_rel_slowly(Vcpu& cpu, const Op* op) {
  if (!in_code<T>(cpu.rip + op->imm)) return call_nowhere<T>(cpu, op);
  if (!push_return<T>(cpu, op)) return fault_at(cpu, op);
  return chain<Cross>(cpu, op, 0, op->imm);
}
template <class T, bool Cross>
const Op* call_rel(Vcpu& cpu, const Op* op) {
  const T sp = static_cast<T>(get<T>(cpu, isa::rsp * 8) - sizeof(T));
  u8* p = cpu::tlb_lookup(cpu, Gva{sp}, sizeof(T), cpu.need_write);
  if (!p || !in_code<T>(cpu.rip + op->imm)) [[unlikely]]
    return call_rel_slowly<T, Cross>(cpu, op);
  store<T>(p, static_cast<T>(cpu.rip + next_distance(op)));
  set<T>(cpu, isa::rsp * 8, sp);
  return chain<Cross>(cpu, op, 0, op->imm);
}

template <class T>
const Op* call_to(Vcpu& cpu, const Op* op, T target) {
  if (!in_code<T>(target)) [[unlikely]]
    return call_nowhere<T>(cpu, op);
  if (!push_return<T>(cpu, op)) [[unlikely]]
    return fault_at(cpu, op);
  return jump_to(cpu, target);
}
template <class T>
const Op* call_reg(Vcpu& cpu, const Op* op) {
  return call_to<T>(cpu, op, get<T>(cpu, op->dst));
}
template <class T>
const Op* call_mem(Vcpu& cpu, const Op* op) {
  if (const u8* p = reach<Address::any, false>(cpu, op, sizeof(T))) [[likely]]
    return call_to<T>(cpu, op, load<T>(p));
  const Loaded v = load_slow(cpu, op, sizeof(T));
  if (!v.ok) return fault_at(cpu, op);
  return call_to<T>(cpu, op, static_cast<T>(v.value));
}

template <class T>
[[gnu::cold, gnu::noinline]] const Op* ret_slowly(Vcpu& cpu, const Op* op) {
  const u64 rsp = cpu.gpr[isa::rsp];
  const Loaded target = pop_slow(cpu, op, sizeof(T));
  if (!target.ok) return fault_at(cpu, op);
  if (!in_code<T>(target.value)) {
    cpu.gpr[isa::rsp] = rsp;
    return raise_gp_at(cpu, op);
  }
  set<T>(cpu, isa::rsp * 8, static_cast<T>(get<T>(cpu, isa::rsp * 8) + op->imm));
  if (must_leave(cpu, op)) run_of(cpu).limit = 0;
  return jump_to(cpu, static_cast<T>(target.value));
}
template <class T>
const Op* ret(Vcpu& cpu, const Op* op) {
  const T sp = get<T>(cpu, isa::rsp * 8);
  const u8* p = cpu::tlb_lookup(cpu, Gva{sp}, sizeof(T), cpu.need_read);
  if (!p) [[unlikely]]
    return ret_slowly<T>(cpu, op);
  const T target = load<T>(p);
  if (!in_code<T>(target)) [[unlikely]]
    return raise_gp_at(cpu, op);
  set<T>(cpu, isa::rsp * 8, static_cast<T>(sp + sizeof(T) + op->imm));
  return jump_to(cpu, target);
}

template <class T>
const Op* jmp_reg(Vcpu& cpu, const Op* op) {
  const T target = get<T>(cpu, op->dst);
  if (!in_code<T>(target)) [[unlikely]]
    return raise_gp_at(cpu, op);
  return jump_to(cpu, target);
}
template <class T>
[[gnu::cold, gnu::noinline]] const Op* jmp_mem_slowly(Vcpu& cpu, const Op* op) {
  const Loaded v = load_slow(cpu, op, sizeof(T));
  if (!v.ok) return fault_at(cpu, op);
  if (!in_code<T>(v.value)) return raise_gp_at(cpu, op);
  return jump_to(cpu, static_cast<T>(v.value));
}
template <class T>
const Op* jmp_mem(Vcpu& cpu, const Op* op) {
  const u8* p = reach<Address::any, false>(cpu, op, sizeof(T));
  if (!p) [[unlikely]]
    return jmp_mem_slowly<T>(cpu, op);
  const T target = load<T>(p);
  if (!in_code<T>(target)) [[unlikely]]
    return raise_gp_at(cpu, op);
  return jump_to(cpu, target);
}

// -- LOOPcc, JCXZ: T is the counter
enum class Counting { loop, loopz, loopnz, jcxz };
template <class T, Counting C>
const Op* counted(Vcpu& cpu, const Op* op) {
  T count = get<T>(cpu, isa::rcx * 8);
  bool taken;
  if constexpr (C == Counting::jcxz) {
    taken = count == 0;
  } else {
    set<T>(cpu, isa::rcx * 8, --count);
    taken = count != 0;
    if constexpr (C == Counting::loopz) taken &= condition<4>(cpu.arith);
    if constexpr (C == Counting::loopnz) taken &= condition<5>(cpu.arith);
  }
  if (taken) return chain<true>(cpu, op, 0, op->imm);
  return chain<true>(cpu, op, 1, next_distance(op));
}
template <Counting C>
Handler choose_counted(unsigned bytes) {
  return bytes == 8 ? counted<u64, C> : bytes == 4 ? counted<u32, C> : counted<u16, C>;
}

// -- Choice
template <bool Cross, std::size_t... Cc>
Handler jcc_of(unsigned cc, std::index_sequence<Cc...>) {
  static constexpr Handler table[] = {jcc<Cc, Cross>...};
  return table[cc];
}
template <class F, class T, bool Imm, bool Cross, std::size_t... Cc>
Handler fused_of(unsigned cc, std::index_sequence<Cc...>) {
  static constexpr Handler table[] = {fused_jcc<F, T, Imm, Cc, Cross>...};
  return table[cc];
}
template <class F, class T, bool Imm>
Handler fused_crossing(unsigned cc, bool cross) {
  constexpr auto all = std::make_index_sequence<16>{};
  return cross ? fused_of<F, T, Imm, true>(cc, all) : fused_of<F, T, Imm, false>(cc, all);
}
template <class F>
Handler fused_sized(unsigned bytes, bool imm, unsigned cc, bool cross) {
  switch (bytes) {
    case 1:
      return imm ? fused_crossing<F, u8, true>(cc, cross) : fused_crossing<F, u8, false>(cc, cross);
    case 4:
      return imm ? fused_crossing<F, u32, true>(cc, cross) : fused_crossing<F, u32, false>(cc, cross);
    case 8:
      return imm ? fused_crossing<F, u64, true>(cc, cross) : fused_crossing<F, u64, false>(cc, cross);
    default:
      return nullptr;
  }
}

template <class T>
Handler choose_indirect(const Insn& insn) {
  const bool mem = insn.op[0].kind == Kind::mem;
  if (insn.mnemonic == ZYDIS_MNEMONIC_CALL) return mem ? call_mem<T> : call_reg<T>;
  return mem ? jmp_mem<T> : jmp_reg<T>;
}
template <class T>
Handler choose_call_rel(bool cross) {
  return cross ? call_rel<T, true> : call_rel<T, false>;
}

}  // namespace

Handler choose_branch(const Insn& insn, u32 key, bool cross) {
  const unsigned native = (key & key::size_mask) == 2 ? 8 : 4;
  const bool stack_ok = native == 8 || ((key & key::flat_data) && (key & key::ss_big));
  if (!(key & key::flat_code) || (key & key::size_mask) == 0 || insn.operand_bytes != native) return nullptr;
  if (const int cc = condition_of(insn.mnemonic); cc >= 0) {
    constexpr auto all = std::make_index_sequence<16>{};
    return cross ? jcc_of<true>(static_cast<unsigned>(cc), all) : jcc_of<false>(static_cast<unsigned>(cc), all);
  }
  const Kind kind = insn.op[0].kind;
  switch (insn.mnemonic) {
    case ZYDIS_MNEMONIC_JMP:
      if (kind == Kind::imm) return cross ? jmp_rel<true> : jmp_rel<false>;
      return native == 8 ? choose_indirect<u64>(insn) : choose_indirect<u32>(insn);
    case ZYDIS_MNEMONIC_CALL:
      if (!stack_ok) return nullptr;
      if (kind == Kind::imm) return native == 8 ? choose_call_rel<u64>(cross) : choose_call_rel<u32>(cross);
      return native == 8 ? choose_indirect<u64>(insn) : choose_indirect<u32>(insn);
    case ZYDIS_MNEMONIC_RET:
      return !stack_ok ? nullptr : native == 8 ? ret<u64> : Handler{ret<u32>};
    case ZYDIS_MNEMONIC_LOOP:
      return choose_counted<Counting::loop>(insn.address_bytes);
    case ZYDIS_MNEMONIC_LOOPE:
      return choose_counted<Counting::loopz>(insn.address_bytes);
    case ZYDIS_MNEMONIC_LOOPNE:
      return choose_counted<Counting::loopnz>(insn.address_bytes);
    case ZYDIS_MNEMONIC_JCXZ:
    case ZYDIS_MNEMONIC_JECXZ:
    case ZYDIS_MNEMONIC_JRCXZ:
      return choose_counted<Counting::jcxz>(insn.address_bytes);
    default:
      return nullptr;
  }
}

Handler choose_fall_through(bool cross) { return cross ? fall_through<true> : fall_through<false>; }

Handler choose_fused(const Insn& compare, int cc, bool cross) {
  const bool reg =
      compare.op[0].kind == Kind::gpr && (compare.op[1].kind == Kind::gpr || compare.op[1].kind == Kind::imm);
  if (!reg) return nullptr;
  const bool imm = compare.op[1].kind == Kind::imm;
  const auto c = static_cast<unsigned>(cc);
  if (compare.mnemonic == ZYDIS_MNEMONIC_CMP) return fused_sized<Cmp>(compare.op[0].bytes, imm, c, cross);
  if (compare.mnemonic == ZYDIS_MNEMONIC_TEST) return fused_sized<Test>(compare.op[0].bytes, imm, c, cross);
  return nullptr;
}

}  // namespace trapline::engine::interpret
