// Data movement without flags: MOV, MOVZX, MOVSX, LEA, XCHG of registers, SETcc, BSWAP, CBW family; and the one-byte
// flag instructions.
#include "engine/interpret/shapes.h"

namespace trapline::engine::interpret {

namespace {

using Kind = isa::Operand::Kind;

// -- Loads with extension: To register, From memory or register
template <class To, class From>
const Op* extend_reg(Vcpu& cpu, const Op* op) {
  set<To>(cpu, op->dst, static_cast<To>(get<From>(cpu, op->src)));
  TRAPLINE_NEXT(cpu, op);
}

template <class To, class From>
[[gnu::cold, gnu::noinline]] const Op* load_slowly(Vcpu& cpu, const Op* op) {
  const Loaded v = load_slow(cpu, op, sizeof(From));
  if (!v.ok) return fault_at(cpu, op);
  set<To>(cpu, op->dst, static_cast<To>(static_cast<From>(v.value)));
  if (must_leave(cpu, op)) return leave_after(cpu, op);
  TRAPLINE_NEXT(cpu, op);
}
template <class To, class From, Address A>
const Op* load_mem(Vcpu& cpu, const Op* op) {
  const u8* p = reach<A, false>(cpu, op, sizeof(From));
  if (!p) [[unlikely]]
    return load_slowly<To, From>(cpu, op);
  set<To>(cpu, op->dst, static_cast<To>(load<From>(p)));
  TRAPLINE_NEXT(cpu, op);
}

template <class To, class From>
Handler choose_load(Address a) {
  switch (a) {
    case Address::base64:
      return load_mem<To, From, Address::base64>;
    case Address::index64:
      return load_mem<To, From, Address::index64>;
    case Address::flat32:
      return load_mem<To, From, Address::flat32>;
    default:
      return load_mem<To, From, Address::any>;
  }
}
template <class To, class From>
Handler choose_extend(const Insn& insn, const Form& form) {
  return insn.op[1].kind == Kind::mem ? choose_load<To, From>(form.address) : Handler{extend_reg<To, From>};
}
// set() takes an unsigned To; the signedness of From decides the extension.
template <class From>
Handler choose_extend_to(const Insn& insn, const Form& form) {
  switch (insn.op[0].bytes) {
    case 2:
      return choose_extend<u16, From>(insn, form);
    case 4:
      return choose_extend<u32, From>(insn, form);
    case 8:
      return choose_extend<u64, From>(insn, form);
    default:
      return nullptr;
  }
}

// -- Stores
template <class T, bool Imm>
[[gnu::cold, gnu::noinline]] const Op* store_slowly(Vcpu& cpu, const Op* op) {
  if (!store_slow(cpu, op, source<Mov, T, Imm>(cpu, op), sizeof(T))) return fault_at(cpu, op);
  if (must_leave(cpu, op)) return leave_after(cpu, op);
  TRAPLINE_NEXT(cpu, op);
}
template <class T, bool Imm, Address A>
const Op* store_mem(Vcpu& cpu, const Op* op) {
  u8* p = reach<A, true>(cpu, op, sizeof(T));
  if (!p) [[unlikely]]
    return store_slowly<T, Imm>(cpu, op);
  store<T>(p, source<Mov, T, Imm>(cpu, op));
  TRAPLINE_NEXT(cpu, op);
}
template <class T, bool Imm>
Handler choose_store(Address a) {
  switch (a) {
    case Address::base64:
      return store_mem<T, Imm, Address::base64>;
    case Address::index64:
      return store_mem<T, Imm, Address::index64>;
    case Address::flat32:
      return store_mem<T, Imm, Address::flat32>;
    default:
      return store_mem<T, Imm, Address::any>;
  }
}

template <class T>
Handler mov_sized(const Form& form) {
  switch (form.shape) {
    case Shape::reg_reg:
      return extend_reg<T, T>;
    case Shape::reg_imm:
      return reg_imm<Mov, T>;
    case Shape::reg_mem:
      return choose_load<T, T>(form.address);
    case Shape::mem_reg:
      return choose_store<T, false>(form.address);
    default:
      return choose_store<T, true>(form.address);
  }
}
Handler mov(const Form& form) {
  switch (form.bytes) {
    case 1:
      return mov_sized<u8>(form);
    case 2:
      return mov_sized<u16>(form);
    case 4:
      return mov_sized<u32>(form);
    case 8:
      return mov_sized<u64>(form);
    default:
      return nullptr;
  }
}

// -- LEA, XCHG, BSWAP
template <class T>
const Op* lea(Vcpu& cpu, const Op* op) {
  set<T>(cpu, op->dst, static_cast<T>(offset_of(cpu, op)));
  TRAPLINE_NEXT(cpu, op);
}
const Op* lea_base64(Vcpu& cpu, const Op* op) {
  set<u64>(cpu, op->dst, get<u64>(cpu, op->base) + static_cast<u64>(i64{op->disp}));
  TRAPLINE_NEXT(cpu, op);
}

template <class T>
const Op* xchg_reg(Vcpu& cpu, const Op* op) {
  const T a = get<T>(cpu, op->dst), b = get<T>(cpu, op->src);
  set<T>(cpu, op->dst, b);
  set<T>(cpu, op->src, a);
  TRAPLINE_NEXT(cpu, op);
}

const Op* bswap32(Vcpu& cpu, const Op* op) {
  set<u32>(cpu, op->dst, __builtin_bswap32(get<u32>(cpu, op->dst)));
  TRAPLINE_NEXT(cpu, op);
}
const Op* bswap16(Vcpu& cpu, const Op* op) {  // undefined; processors clear the register
  set<u16>(cpu, op->dst, 0);
  TRAPLINE_NEXT(cpu, op);
}
const Op* bswap64(Vcpu& cpu, const Op* op) {
  set<u64>(cpu, op->dst, __builtin_bswap64(get<u64>(cpu, op->dst)));
  TRAPLINE_NEXT(cpu, op);
}

// -- CBW CWDE CDQE, CWD CDQ CQO
template <class To, class From>
const Op* widen_rax(Vcpu& cpu, const Op* op) {
  set<To>(cpu, 0, static_cast<To>(get<From>(cpu, 0)));
  TRAPLINE_NEXT(cpu, op);
}
template <class T, class Signed>
const Op* sign_to_rdx(Vcpu& cpu, const Op* op) {
  set<T>(cpu, isa::rdx * 8, static_cast<T>(get<Signed>(cpu, 0) < 0 ? -1 : 0));
  TRAPLINE_NEXT(cpu, op);
}

// -- SETcc
template <unsigned Cc>
const Op* setcc_high(Vcpu& cpu, const Op* op) {
  set<u8>(cpu, op->dst, condition<Cc>(cpu.arith));
  TRAPLINE_NEXT(cpu, op);
}
template <unsigned Cc>
const Op* setcc_low(Vcpu& cpu, const Op* op) {  // a whole store: the next reader often takes all of the register
  set<u64>(cpu, op->dst, (get<u64>(cpu, op->dst) & ~u64{0xff}) | condition<Cc>(cpu.arith));
  TRAPLINE_NEXT(cpu, op);
}
template <unsigned Cc>
const Op* setcc_mem(Vcpu& cpu, const Op* op) {
  const u8 value = condition<Cc>(cpu.arith);
  if (u8* p = reach<Address::any, true>(cpu, op, 1)) [[likely]] {
    *p = value;
    TRAPLINE_NEXT(cpu, op);
  }
  if (!store_slow(cpu, op, value, 1)) return fault_at(cpu, op);
  if (must_leave(cpu, op)) return leave_after(cpu, op);
  TRAPLINE_NEXT(cpu, op);
}
template <unsigned Cc>
Handler setcc(const Insn& insn) {
  if (insn.op[0].kind == Kind::mem) return setcc_mem<Cc>;
  return insn.op[0].high8 ? Handler{setcc_high<Cc>} : Handler{setcc_low<Cc>};
}
Handler choose_setcc(const Insn& insn) {
  switch (insn.mnemonic) {
    case ZYDIS_MNEMONIC_SETO:
      return setcc<0>(insn);
    case ZYDIS_MNEMONIC_SETNO:
      return setcc<1>(insn);
    case ZYDIS_MNEMONIC_SETB:
      return setcc<2>(insn);
    case ZYDIS_MNEMONIC_SETNB:
      return setcc<3>(insn);
    case ZYDIS_MNEMONIC_SETZ:
      return setcc<4>(insn);
    case ZYDIS_MNEMONIC_SETNZ:
      return setcc<5>(insn);
    case ZYDIS_MNEMONIC_SETBE:
      return setcc<6>(insn);
    case ZYDIS_MNEMONIC_SETNBE:
      return setcc<7>(insn);
    case ZYDIS_MNEMONIC_SETS:
      return setcc<8>(insn);
    case ZYDIS_MNEMONIC_SETNS:
      return setcc<9>(insn);
    case ZYDIS_MNEMONIC_SETP:
      return setcc<10>(insn);
    case ZYDIS_MNEMONIC_SETNP:
      return setcc<11>(insn);
    case ZYDIS_MNEMONIC_SETL:
      return setcc<12>(insn);
    case ZYDIS_MNEMONIC_SETNL:
      return setcc<13>(insn);
    case ZYDIS_MNEMONIC_SETLE:
      return setcc<14>(insn);
    case ZYDIS_MNEMONIC_SETNLE:
      return setcc<15>(insn);
    default:
      return nullptr;
  }
}

// -- Flags and nothing
const Op* nop([[maybe_unused]] Vcpu& cpu, const Op* op) { TRAPLINE_NEXT(cpu, op); }
const Op* clc(Vcpu& cpu, const Op* op) {
  cpu.arith &= 0xfeff;
  TRAPLINE_NEXT(cpu, op);
}
const Op* stc(Vcpu& cpu, const Op* op) {
  cpu.arith |= 0x100;
  TRAPLINE_NEXT(cpu, op);
}
const Op* cmc(Vcpu& cpu, const Op* op) {
  cpu.arith ^= 0x100;
  TRAPLINE_NEXT(cpu, op);
}
const Op* cld(Vcpu& cpu, const Op* op) {
  cpu.sys_flags &= ~cpu::flag::df;
  TRAPLINE_NEXT(cpu, op);
}
const Op* std_(Vcpu& cpu, const Op* op) {
  cpu.sys_flags |= cpu::flag::df;
  TRAPLINE_NEXT(cpu, op);
}
const Op* fence([[maybe_unused]] Vcpu& cpu, const Op* op) {
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  TRAPLINE_NEXT(cpu, op);
}
const Op* lahf(Vcpu& cpu, const Op* op) {
  set<u8>(cpu, 1, static_cast<u8>((cpu.arith >> 8 & 0xd5) | 2));
  TRAPLINE_NEXT(cpu, op);
}
const Op* sahf(Vcpu& cpu, const Op* op) {
  cpu.arith = static_cast<u16>((get<u8>(cpu, 1) & 0xd5) << 8 | 0x0200 | (cpu.arith & 1));
  TRAPLINE_NEXT(cpu, op);
}

Handler choose_xchg(const Form& form) {
  if (form.shape != Shape::reg_reg) return nullptr;
  switch (form.bytes) {
    case 1:
      return xchg_reg<u8>;
    case 2:
      return xchg_reg<u16>;
    case 4:
      return xchg_reg<u32>;
    case 8:
      return xchg_reg<u64>;
    default:
      return nullptr;
  }
}

Handler choose_lea(const Insn& insn, const Form& form) {
  switch (insn.op[0].bytes) {
    case 2:
      return lea<u16>;
    case 4:
      return lea<u32>;
    case 8:
      return form.address == Address::base64 ? lea_base64 : lea<u64>;
    default:
      return nullptr;
  }
}

}  // namespace

Handler choose_move(const Insn& insn, const Form& form) {
  switch (insn.mnemonic) {
    case ZYDIS_MNEMONIC_MOV:
      return mov(form);
    case ZYDIS_MNEMONIC_MOVZX:
      return insn.op[1].bytes == 1 ? choose_extend_to<u8>(insn, form) : choose_extend_to<u16>(insn, form);
    case ZYDIS_MNEMONIC_MOVSX:
      return insn.op[1].bytes == 1 ? choose_extend_to<i8>(insn, form) : choose_extend_to<i16>(insn, form);
    case ZYDIS_MNEMONIC_MOVSXD:
      return insn.op[1].bytes == 2 ? choose_extend_to<i16>(insn, form) : choose_extend_to<i32>(insn, form);
    case ZYDIS_MNEMONIC_LEA:
      return choose_lea(insn, form);
    case ZYDIS_MNEMONIC_XCHG:
      return choose_xchg(form);
    case ZYDIS_MNEMONIC_BSWAP:
      return insn.op[0].bytes == 8 ? bswap64 : insn.op[0].bytes == 4 ? bswap32 : bswap16;
    case ZYDIS_MNEMONIC_CBW:
      return widen_rax<u16, i8>;
    case ZYDIS_MNEMONIC_CWDE:
      return widen_rax<u32, i16>;
    case ZYDIS_MNEMONIC_CDQE:
      return widen_rax<u64, i32>;
    case ZYDIS_MNEMONIC_CWD:
      return sign_to_rdx<u16, i16>;
    case ZYDIS_MNEMONIC_CDQ:
      return sign_to_rdx<u32, i32>;
    case ZYDIS_MNEMONIC_CQO:
      return sign_to_rdx<u64, i64>;
    case ZYDIS_MNEMONIC_CLC:
      return clc;
    case ZYDIS_MNEMONIC_STC:
      return stc;
    case ZYDIS_MNEMONIC_CMC:
      return cmc;
    case ZYDIS_MNEMONIC_CLD:
      return cld;
    case ZYDIS_MNEMONIC_STD:
      return std_;
    case ZYDIS_MNEMONIC_LAHF:
      return lahf;
    case ZYDIS_MNEMONIC_SAHF:
      return sahf;
    case ZYDIS_MNEMONIC_LFENCE:
    case ZYDIS_MNEMONIC_SFENCE:
    case ZYDIS_MNEMONIC_MFENCE:
      return fence;
    // Hints. Multi-byte NOPs and prefetches name memory that they never access.
    case ZYDIS_MNEMONIC_NOP:
    case ZYDIS_MNEMONIC_ENDBR32:
    case ZYDIS_MNEMONIC_ENDBR64:
    case ZYDIS_MNEMONIC_PREFETCH:
    case ZYDIS_MNEMONIC_PREFETCHNTA:
    case ZYDIS_MNEMONIC_PREFETCHT0:
    case ZYDIS_MNEMONIC_PREFETCHT1:
    case ZYDIS_MNEMONIC_PREFETCHT2:
    case ZYDIS_MNEMONIC_PREFETCHW:
    case ZYDIS_MNEMONIC_PREFETCHWT1:
    case ZYDIS_MNEMONIC_CLDEMOTE:
      return nop;
    default:
      return choose_setcc(insn);
  }
}

}  // namespace trapline::engine::interpret
