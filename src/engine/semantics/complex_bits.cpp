// Bit tests whose offset may reach beyond the operand, double shifts, BMI1 and BMI2.
#include <bit>

#include "engine/semantics/complex.h"

namespace trapline::engine::semantics {

namespace {

// BT m, r: the bit string starts at the operand and extends both ways (SDM Vol. 1 3.1.1.9, "Bit(BitBase, BitOffset)").
// BT m, imm: the offset is cut to the operand (SDM Vol. 2A BT).
template <class F>
Outcome bit_string(Vcpu& cpu, const Insn& insn) {
  return by_width(insn.op[0].bytes, [&](auto zero) {
    using T = decltype(zero);
    if constexpr (sizeof(T) == 1) {
      return cpu.raise_ud();
    } else {
      const bool imm = insn.op[1].kind == Operand::Kind::imm;
      const T bit = imm ? static_cast<T>(insn.imm & (sizeof(T) * 8 - 1)) : low<T>(cpu, insn.op[1].reg & 15);
      constexpr unsigned log_bits = sizeof(T) == 2 ? 4 : sizeof(T) == 4 ? 5 : 6;
      const i64 step =
          (static_cast<i64>(static_cast<std::make_signed_t<T>>(bit)) >> log_bits) * static_cast<i64>(sizeof(T));
      isa::MemOperand mem = insn.mem;
      mem.disp = static_cast<i64>(static_cast<u64>(mem.disp) + static_cast<u64>(step));
      const u64 offset = cpu::effective_address(cpu, mem, cpu.rip + insn.length);
      u16 f = cpu.arith;
      if constexpr (F::writes) {
        const auto change = [&](T old) {
          f = cpu.arith;
          return F::template apply<T>(f, old, bit);
        };
        if (!modify_memory<T>(cpu, mem.seg, offset, insn.lock, change)) return Outcome::fault;
      } else {
        T value;
        if (!cpu::read(cpu, mem.seg, offset, value)) return Outcome::fault;
        (void)F::template apply<T>(f, value, bit);
      }
      cpu.arith = f;
      return Outcome::next;
    }
  });
}

template <class T, bool ExitReason>
T double_shift(u16& f, T a, T b, u8 count) {
  if constexpr (ExitReason)
    asm(TRAPLINE_LOAD_FLAGS "shld %%cl, %[b], %[a]" TRAPLINE_SAVE_FLAGS
        : [a] "+&r"(a), "+&a"(f)
        : [b] "r"(b), "c"(count)
        : "cc");
  else
    asm(TRAPLINE_LOAD_FLAGS "shrd %%cl, %[b], %[a]" TRAPLINE_SAVE_FLAGS
        : [a] "+&r"(a), "+&a"(f)
        : [b] "r"(b), "c"(count)
        : "cc");
  return a;
}

template <bool ExitReason>
Outcome shift_double(Vcpu& cpu, const Insn& insn) {
  const bool imm = insn.op[2].kind == Operand::Kind::imm;
  const u8 count = static_cast<u8>(imm ? insn.imm : cpu.gpr[isa::rcx]) & (insn.op[0].bytes == 8 ? 63 : 31);
  return by_width(insn.op[0].bytes, [&](auto zero) {
    using T = decltype(zero);
    if constexpr (sizeof(T) == 1) {
      return cpu.raise_ud();
    } else {
      const T b = low<T>(cpu, insn.op[1].reg & 15);
      u16 f = cpu.arith;
      const auto shift = [&](T a) { return count ? double_shift<T, ExitReason>(f, a, b, count) : a; };
      if (is_mem(insn.op[0])) {
        if (!modify_memory<T>(cpu, insn.mem.seg, offset_of(cpu, insn), false, shift)) return Outcome::fault;
      } else {
        set_low<T>(cpu, insn.op[0].reg & 15, shift(low<T>(cpu, insn.op[0].reg & 15)));
      }
      cpu.arith = f;
      return Outcome::next;
    }
  });
}

// -- BMI: VEX-encoded, so #UD in real and virtual-8086 mode
bool vex_allowed(const Vcpu& cpu) { return cpu.protected_mode() && !(cpu.sys_flags & cpu::flag::vm); }

struct Operands {
  u64 a = 0, b = 0;
  unsigned bits = 32;
};
bool fetch(Vcpu& cpu, const Insn& insn, unsigned first, unsigned second, Operands& out) {
  out.bits = insn.op[0].bytes * 8u;
  return cpu::load_operand(cpu, insn, insn.op[first], &out.a) &&
         (second == 0 || cpu::load_operand(cpu, insn, insn.op[second], &out.b));
}
u64 trim(u64 v, unsigned bits) { return bits == 32 ? static_cast<u32>(v) : v; }

Outcome store_result(Vcpu& cpu, const Insn& insn, u64 value) {
  return cpu::store_operand(cpu, insn, insn.op[0], value) ? Outcome::next : Outcome::fault;
}

// The host's own instruction, since AF and PF (of BEXTR SF too) are undefined and vendors differ. A guest is offered
// what its host has.
#define TRAPLINE_BMI(Name, text)                                \
  struct Name {                                                 \
    template <class T>                                          \
    static T apply(u16& f, T a, [[maybe_unused]] T b) {         \
      T r;                                                      \
      asm(TRAPLINE_LOAD_FLAGS text ", %[r]" TRAPLINE_SAVE_FLAGS \
          : [r] "=&r"(r), "+&a"(f)                              \
          : [a] "r"(a), [b] "r"(b)                              \
          : "cc");                                              \
      return r;                                                 \
    }                                                           \
  };
TRAPLINE_BMI(Andn, "andn %[b], %[a]")
TRAPLINE_BMI(Bextr, "bextr %[b], %[a]")
TRAPLINE_BMI(Bzhi, "bzhi %[b], %[a]")
TRAPLINE_BMI(Blsi, "blsi %[a]")
TRAPLINE_BMI(Blsmsk, "blsmsk %[a]")
TRAPLINE_BMI(Blsr, "blsr %[a]")

// One source (BLS*: operand 1) or two (operands 1 and 2).
template <class F, unsigned Second>
Outcome bmi(Vcpu& cpu, const Insn& insn) {
  Operands o;
  if (!vex_allowed(cpu)) return cpu.raise_ud();
  if (!fetch(cpu, insn, 1, Second, o)) return Outcome::fault;
  u16 f = cpu.arith;
  const u64 r = o.bits == 32 ? F::template apply<u32>(f, static_cast<u32>(o.a), static_cast<u32>(o.b))
                             : F::template apply<u64>(f, o.a, o.b);
  cpu.arith = f;
  return store_result(cpu, insn, r);
}

Outcome mulx(Vcpu& cpu, const Insn& insn) {  // op0: high half, op1: low half, op2: source; the other factor is RDX
  if (!vex_allowed(cpu)) return cpu.raise_ud();
  u64 b = 0;
  if (!cpu::load_operand(cpu, insn, insn.op[2], &b)) return Outcome::fault;
  const unsigned bits = insn.op[0].bytes * 8u;
  const u128 product = u128{trim(cpu.gpr[isa::rdx], bits)} * b;
  (void)cpu::store_operand(cpu, insn, insn.op[1], trim(static_cast<u64>(product), bits));
  return store_result(cpu, insn,
                      trim(static_cast<u64>(product >> bits), bits));  // last: wins when both are one register
}

u64 deposit(u64 source, u64 mask) {
  u64 r = 0;
  for (; mask; mask &= mask - 1, source >>= 1)
    if (source & 1) r |= mask & (0 - mask);
  return r;
}
u64 extract(u64 source, u64 mask) {
  u64 r = 0;
  for (unsigned i = 0; mask; mask &= mask - 1, i++)
    if (source & mask & (0 - mask)) r |= u64{1} << i;
  return r;
}
template <bool Deposit>
Outcome parallel_bits(Vcpu& cpu, const Insn& insn) {
  Operands o;
  if (!vex_allowed(cpu)) return cpu.raise_ud();
  if (!fetch(cpu, insn, 1, 2, o)) return Outcome::fault;
  return store_result(cpu, insn, Deposit ? deposit(o.a, o.b) : extract(o.a, o.b));
}

enum class Direction { left, right, arithmetic, rotate };
template <Direction D>
Outcome shift_free(Vcpu& cpu, const Insn& insn) {  // RORX, SARX, SHLX, SHRX: no flags
  Operands o;
  if (!vex_allowed(cpu)) return cpu.raise_ud();
  if (!fetch(cpu, insn, 1, 2, o)) return Outcome::fault;
  const unsigned n = static_cast<unsigned>(o.b) & (o.bits - 1);
  u64 r;
  if (o.bits == 32) {
    const u32 v = static_cast<u32>(o.a);
    r = D == Direction::left         ? v << n
        : D == Direction::right      ? v >> n
        : D == Direction::arithmetic ? static_cast<u32>(static_cast<i32>(v) >> n)
                                     : std::rotr(v, static_cast<int>(n));
  } else {
    r = D == Direction::left         ? o.a << n
        : D == Direction::right      ? o.a >> n
        : D == Direction::arithmetic ? static_cast<u64>(static_cast<i64>(o.a) >> n)
                                     : std::rotr(o.a, static_cast<int>(n));
  }
  return store_result(cpu, insn, r);
}

}  // namespace

cpu::Semantic find_complex_bits(const Insn& insn) {
  switch (insn.mnemonic) {
    case ZYDIS_MNEMONIC_BT:
      return bit_string<Bt>;
    case ZYDIS_MNEMONIC_BTS:
      return bit_string<Bts>;
    case ZYDIS_MNEMONIC_BTR:
      return bit_string<Btr>;
    case ZYDIS_MNEMONIC_BTC:
      return bit_string<Btc>;
    case ZYDIS_MNEMONIC_SHLD:
      return shift_double<true>;
    case ZYDIS_MNEMONIC_SHRD:
      return shift_double<false>;
    case ZYDIS_MNEMONIC_ANDN:
      return bmi<Andn, 2>;
    case ZYDIS_MNEMONIC_BLSI:
      return bmi<Blsi, 0>;
    case ZYDIS_MNEMONIC_BLSMSK:
      return bmi<Blsmsk, 0>;
    case ZYDIS_MNEMONIC_BLSR:
      return bmi<Blsr, 0>;
    case ZYDIS_MNEMONIC_BEXTR:
      return bmi<Bextr, 2>;
    case ZYDIS_MNEMONIC_BZHI:
      return bmi<Bzhi, 2>;
    case ZYDIS_MNEMONIC_MULX:
      return mulx;
    case ZYDIS_MNEMONIC_PDEP:
      return parallel_bits<true>;
    case ZYDIS_MNEMONIC_PEXT:
      return parallel_bits<false>;
    case ZYDIS_MNEMONIC_RORX:
      return shift_free<Direction::rotate>;
    case ZYDIS_MNEMONIC_SARX:
      return shift_free<Direction::arithmetic>;
    case ZYDIS_MNEMONIC_SHLX:
      return shift_free<Direction::left>;
    case ZYDIS_MNEMONIC_SHRX:
      return shift_free<Direction::right>;
    default:
      return nullptr;
  }
}

}  // namespace trapline::engine::semantics
