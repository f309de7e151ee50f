// Register forms of bit tests and counts, two- and three-operand IMUL, CMOVcc. 16, 32 and 64 bits.
#include "engine/interpret/shapes.h"

namespace trapline::engine::interpret {

namespace {

template <class F, class T>
Handler wide_sized(const Form& form) {
  if (form.shape == Shape::reg_reg) return reg_reg<F, T>;
  if (form.shape == Shape::reg_mem) return choose_reg_mem<F, T>(form.address);
  if (form.shape == Shape::reg_imm) return reg_imm<F, T>;
  return nullptr;
}
template <class F>
Handler wide(const Form& form) {
  switch (form.bytes) {
    case 2:
      return wide_sized<F, u16>(form);
    case 4:
      return wide_sized<F, u32>(form);
    case 8:
      return wide_sized<F, u64>(form);
    default:
      return nullptr;
  }
}

template <class F, class T>
Handler bit_sized(const Form& form) {
  if (form.shape == Shape::reg_reg) return reg_reg<F, T>;
  if (form.shape == Shape::reg_imm) return reg_imm<F, T>;
  // An immediate bit offset stays inside the operand; one in a register may reach any memory: complex_bits.cpp.
  if (form.shape == Shape::mem_imm) return choose_sized<F, T>(form);
  return nullptr;
}
template <class F>
Handler bit(const Form& form) {
  switch (form.bytes) {
    case 2:
      return bit_sized<F, u16>(form);
    case 4:
      return bit_sized<F, u32>(form);
    case 8:
      return bit_sized<F, u64>(form);
    default:
      return nullptr;
  }
}

// BSF, BSR: with a zero source the host leaves the destination alone, and its upper half as it does.
template <class T, bool Reverse>
inline void bit_scan(Vcpu& cpu, const Op* op, T b) {
  u16 f = cpu.arith;
  u64 a = get<u64>(cpu, op->dst);
  if constexpr (sizeof(T) == 2) {
    if constexpr (Reverse)
      asm(TRAPLINE_LOAD_FLAGS "bsr %w[b], %w[a]" TRAPLINE_SAVE_FLAGS : [a] "+&r"(a), "+&a"(f) : [b] "r"(b) : "cc");
    else
      asm(TRAPLINE_LOAD_FLAGS "bsf %w[b], %w[a]" TRAPLINE_SAVE_FLAGS : [a] "+&r"(a), "+&a"(f) : [b] "r"(b) : "cc");
  } else if constexpr (sizeof(T) == 4) {
    if constexpr (Reverse)
      asm(TRAPLINE_LOAD_FLAGS "bsr %k[b], %k[a]" TRAPLINE_SAVE_FLAGS : [a] "+&r"(a), "+&a"(f) : [b] "r"(b) : "cc");
    else
      asm(TRAPLINE_LOAD_FLAGS "bsf %k[b], %k[a]" TRAPLINE_SAVE_FLAGS : [a] "+&r"(a), "+&a"(f) : [b] "r"(b) : "cc");
  } else {
    if constexpr (Reverse)
      asm(TRAPLINE_LOAD_FLAGS "bsr %[b], %[a]" TRAPLINE_SAVE_FLAGS : [a] "+&r"(a), "+&a"(f) : [b] "r"(b) : "cc");
    else
      asm(TRAPLINE_LOAD_FLAGS "bsf %[b], %[a]" TRAPLINE_SAVE_FLAGS : [a] "+&r"(a), "+&a"(f) : [b] "r"(b) : "cc");
  }
  set<u64>(cpu, op->dst, a);
  cpu.arith = f;
}
template <class T, bool Reverse>
const Op* scan_reg(Vcpu& cpu, const Op* op) {
  bit_scan<T, Reverse>(cpu, op, get<T>(cpu, op->src));
  TRAPLINE_NEXT(cpu, op);
}
template <class T, bool Reverse>
const Op* scan_mem(Vcpu& cpu, const Op* op) {
  if (const u8* p = reach<Address::any, false>(cpu, op, sizeof(T))) [[likely]] {
    bit_scan<T, Reverse>(cpu, op, load<T>(p));
  } else {
    const Loaded b = load_slow(cpu, op, sizeof(T));
    if (!b.ok) return fault_at(cpu, op);
    bit_scan<T, Reverse>(cpu, op, static_cast<T>(b.value));
    if (must_leave(cpu, op)) return leave_after(cpu, op);
  }
  TRAPLINE_NEXT(cpu, op);
}
template <bool Reverse>
Handler scan(const Form& form) {
  const bool reg = form.shape == Shape::reg_reg;
  switch (form.bytes) {
    case 2:
      return reg ? scan_reg<u16, Reverse> : scan_mem<u16, Reverse>;
    case 4:
      return reg ? scan_reg<u32, Reverse> : scan_mem<u32, Reverse>;
    case 8:
      return reg ? scan_reg<u64, Reverse> : scan_mem<u64, Reverse>;
    default:
      return nullptr;
  }
}

template <class T>
const Op* imul_mem_imm(Vcpu& cpu, const Op* op) {
  u16 f = cpu.arith;
  T a;
  if (const u8* p = reach<Address::any, false>(cpu, op, sizeof(T))) [[likely]] {
    a = load<T>(p);
  } else {
    const Loaded l = load_slow(cpu, op, sizeof(T));
    if (!l.ok) return fault_at(cpu, op);
    a = static_cast<T>(l.value);
  }
  const T r = Imul::apply<T>(f, a, static_cast<T>(op->imm));
  finish<Imul, T>(cpu, op->dst, f, r);
  TRAPLINE_NEXT(cpu, op);
}

Handler imul(const Insn& insn, const Form& form) {
  if (insn.operand_count == 2) return wide<Imul>(form);
  if (insn.operand_count != 3) return nullptr;
  const bool reg = insn.op[1].kind == isa::Operand::Kind::gpr;
  switch (form.bytes) {
    case 2:
      return reg ? reg_reg_imm<Imul, u16> : imul_mem_imm<u16>;
    case 4:
      return reg ? reg_reg_imm<Imul, u32> : imul_mem_imm<u32>;
    case 8:
      return reg ? reg_reg_imm<Imul, u64> : imul_mem_imm<u64>;
    default:
      return nullptr;
  }
}

}  // namespace

Handler choose_bits(const Insn& insn, const Form& form) {
  switch (insn.mnemonic) {
    case ZYDIS_MNEMONIC_BT:
      return bit<Bt>(form);
    case ZYDIS_MNEMONIC_BTS:
      return bit<Bts>(form);
    case ZYDIS_MNEMONIC_BTR:
      return bit<Btr>(form);
    case ZYDIS_MNEMONIC_BTC:
      return bit<Btc>(form);
    case ZYDIS_MNEMONIC_BSF:
      return scan<false>(form);
    case ZYDIS_MNEMONIC_BSR:
      return scan<true>(form);
    case ZYDIS_MNEMONIC_POPCNT:
      return wide<Popcnt>(form);
    case ZYDIS_MNEMONIC_LZCNT:
      return wide<Lzcnt>(form);
    case ZYDIS_MNEMONIC_TZCNT:
      return wide<Tzcnt>(form);
    case ZYDIS_MNEMONIC_IMUL:
      return imul(insn, form);
    case ZYDIS_MNEMONIC_CMOVO:
      return wide<Cmov<0>>(form);
    case ZYDIS_MNEMONIC_CMOVNO:
      return wide<Cmov<1>>(form);
    case ZYDIS_MNEMONIC_CMOVB:
      return wide<Cmov<2>>(form);
    case ZYDIS_MNEMONIC_CMOVNB:
      return wide<Cmov<3>>(form);
    case ZYDIS_MNEMONIC_CMOVZ:
      return wide<Cmov<4>>(form);
    case ZYDIS_MNEMONIC_CMOVNZ:
      return wide<Cmov<5>>(form);
    case ZYDIS_MNEMONIC_CMOVBE:
      return wide<Cmov<6>>(form);
    case ZYDIS_MNEMONIC_CMOVNBE:
      return wide<Cmov<7>>(form);
    case ZYDIS_MNEMONIC_CMOVS:
      return wide<Cmov<8>>(form);
    case ZYDIS_MNEMONIC_CMOVNS:
      return wide<Cmov<9>>(form);
    case ZYDIS_MNEMONIC_CMOVP:
      return wide<Cmov<10>>(form);
    case ZYDIS_MNEMONIC_CMOVNP:
      return wide<Cmov<11>>(form);
    case ZYDIS_MNEMONIC_CMOVL:
      return wide<Cmov<12>>(form);
    case ZYDIS_MNEMONIC_CMOVNL:
      return wide<Cmov<13>>(form);
    case ZYDIS_MNEMONIC_CMOVLE:
      return wide<Cmov<14>>(form);
    case ZYDIS_MNEMONIC_CMOVNLE:
      return wide<Cmov<15>>(form);
    default:
      return nullptr;
  }
}

}  // namespace trapline::engine::interpret
