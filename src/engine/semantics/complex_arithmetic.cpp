// MUL and IMUL with one operand, DIV and IDIV, the decimal instructions, CRC32, ADCX and ADOX.

#include "engine/semantics/complex.h"

namespace trapline::engine::semantics {

namespace {

// -- MUL, DIV: on the host, the flags with them. RAX holds the flags around the operation, so its operand travels in
// %[a].
#define TRAPLINE_RAX_RDX(text, accumulator)                                                    \
  asm(TRAPLINE_LOAD_FLAGS "mov %[a], %%" accumulator "\n\t" text " %[b]\n\tmov %%" accumulator \
                          ", %[a]" TRAPLINE_SAVE_FLAGS                                         \
      : [a] "+&r"(a), "+&d"(d), "+&a"(f)                                                       \
      : [b] "r"(b)                                                                             \
      : "cc")
#define TRAPLINE_WIDE_OPERATION(name, text)                      \
  template <class T>                                             \
  void name(u16& f, T& a, T& d, T b) {                           \
    if constexpr (sizeof(T) == 2) TRAPLINE_RAX_RDX(text, "ax");  \
    if constexpr (sizeof(T) == 4) TRAPLINE_RAX_RDX(text, "eax"); \
    if constexpr (sizeof(T) == 8) TRAPLINE_RAX_RDX(text, "rax"); \
  }                                                              \
  void name##8(u16 & f, u16 & a, u8 b) {                         \
    u16 d = 0;                                                   \
    TRAPLINE_RAX_RDX(text, "ax");                                \
  }
TRAPLINE_WIDE_OPERATION(host_mul, "mul")
TRAPLINE_WIDE_OPERATION(host_imul, "imul")
TRAPLINE_WIDE_OPERATION(host_div, "div")
TRAPLINE_WIDE_OPERATION(host_idiv, "idiv")

template <class T>
constexpr bool unsigned_quotient_fits(u128 dividend, T divisor) {
  return divisor != 0 && (dividend >> sizeof(T) * 8) < divisor;
}
template <class T>
bool signed_quotient_fits(i128 dividend, i128 divisor) {
  if (divisor == 0) return false;
  constexpr i128 least = -(i128{1} << (sizeof(T) * 8 - 1)), most = -least - 1;
  if (divisor == -1) return dividend >= -most && dividend <= -least;  // the one quotient that could overflow i128
  const i128 q = dividend / divisor;
  return q >= least && q <= most;
}

template <bool Signed>
Outcome mul(Vcpu& cpu, const Insn& insn) {
  u64 b = 0;
  if (!cpu::load_operand(cpu, insn, insn.op[0], &b)) return Outcome::fault;
  return by_width(insn.op[0].bytes, [&](auto zero) {
    using T = decltype(zero);
    u16 f = cpu.arith;
    if constexpr (sizeof(T) == 1) {
      u16 a = low<u16>(cpu, isa::rax);
      Signed ? host_imul8(f, a, static_cast<u8>(b)) : host_mul8(f, a, static_cast<u8>(b));
      set_low<u16>(cpu, isa::rax, a);
    } else {
      T a = low<T>(cpu, isa::rax), d = low<T>(cpu, isa::rdx);
      Signed ? host_imul<T>(f, a, d, static_cast<T>(b)) : host_mul<T>(f, a, d, static_cast<T>(b));
      set_low<T>(cpu, isa::rax, a);
      set_low<T>(cpu, isa::rdx, d);
    }
    cpu.arith = f;
    return Outcome::next;
  });
}

template <bool Signed>
Outcome div(Vcpu& cpu, const Insn& insn) {
  u64 divisor = 0;
  if (!cpu::load_operand(cpu, insn, insn.op[0], &divisor)) return Outcome::fault;
  return by_width(insn.op[0].bytes, [&](auto zero) {
    using T = decltype(zero);
    using S = std::make_signed_t<T>;
    const T b = static_cast<T>(divisor);
    T a = low<T>(cpu, isa::rax), d = sizeof(T) == 1 ? static_cast<T>(cpu.gpr[isa::rax] >> 8) : low<T>(cpu, isa::rdx);
    constexpr unsigned bits = sizeof(T) * 8;
    const bool fits = Signed ? signed_quotient_fits<T>(static_cast<i128>(u128(i128{static_cast<S>(d)}) << bits | a),
                                                       static_cast<S>(b))
                             : unsigned_quotient_fits<T>(u128{d} << bits | a, b);
    if (!fits) return cpu.raise(cpu::Vector::de);
    u16 f = cpu.arith;
    if constexpr (sizeof(T) == 1) {
      u16 ax = low<u16>(cpu, isa::rax);
      Signed ? host_idiv8(f, ax, b) : host_div8(f, ax, b);
      set_low<u16>(cpu, isa::rax, ax);
    } else {
      Signed ? host_idiv<T>(f, a, d, b) : host_div<T>(f, a, d, b);
      set_low<T>(cpu, isa::rax, a);
      set_low<T>(cpu, isa::rdx, d);
    }
    cpu.arith = f;
    return Outcome::next;
  });
}

// -- Decimal (SDM Vol. 2: AAA AAD AAM AAS DAA DAS). 64-bit code does not have them; flags that the manuals leave
// undefined are those measured in 32-bit code on a processor of Intel's (family 6, model 207: all 65,536 values of AX).
constexpr u16 kCarry = 0x100, kAdjust = 0x1000, kOverflow = 1;

void set_flag(Vcpu& cpu, u16 bit, bool on) { cpu.arith = static_cast<u16>(on ? cpu.arith | bit : cpu.arith & ~bit); }

void flags_of_al(Vcpu& cpu) {  // SF, ZF, PF by AL; CF, AF, OF clear
  u16 f = 0;
  const u8 al = low<u8>(cpu, isa::rax);
  (void)Test::apply<u8>(f, al, al);
  cpu.arith = f;
}

template <bool Subtract>
Outcome ascii_adjust(Vcpu& cpu, const Insn&) {  // AAA, AAS
  u16 ax = low<u16>(cpu, isa::rax);
  const bool adjust = (ax & 15) > 9 || (cpu.arith & kAdjust);
  if (adjust) ax = static_cast<u16>(Subtract ? ax - 0x106 : ax + 0x106);
  set_low<u16>(cpu, isa::rax, ax & 0xff0f);
  flags_of_al(cpu);
  set_flag(cpu, kCarry, adjust);
  set_flag(cpu, kAdjust, adjust);
  return Outcome::next;
}

template <bool Subtract>
Outcome decimal_adjust(Vcpu& cpu, const Insn&) {  // DAA, DAS
  const u8 old = low<u8>(cpu, isa::rax);
  const bool old_carry = cpu.arith & kCarry;
  const bool adjust = (old & 15) > 9 || (cpu.arith & kAdjust);
  u8 al = old;
  bool carry = false;
  if (adjust) {
    carry = old_carry || (Subtract ? al < 6 : al > 0xf9);
    al = static_cast<u8>(Subtract ? al - 6 : al + 6);
  }
  if (old > 0x99 || old_carry) {
    al = static_cast<u8>(Subtract ? al - 0x60 : al + 0x60);
    carry = true;
  }
  set_low<u8>(cpu, isa::rax, al);
  flags_of_al(cpu);
  set_flag(cpu, kCarry, carry);
  set_flag(cpu, kAdjust, adjust);
  return Outcome::next;
}

Outcome aam(Vcpu& cpu, const Insn& insn) {
  const u8 base = static_cast<u8>(insn.imm), al = low<u8>(cpu, isa::rax);
  if (base == 0) return cpu.raise(cpu::Vector::de);
  set_low<u16>(cpu, isa::rax, static_cast<u16>((al / base) << 8 | al % base));
  flags_of_al(cpu);
  return Outcome::next;
}
Outcome aad(Vcpu& cpu, const Insn& insn) {
  const u16 ax = low<u16>(cpu, isa::rax);
  u16 f = 0;
  set_low<u16>(cpu, isa::rax, Add::apply<u8>(f, static_cast<u8>(ax), static_cast<u8>((ax >> 8) * insn.imm)));
  cpu.arith = f;
  return Outcome::next;
}
Outcome salc(Vcpu& cpu, const Insn&) {
  set_low<u8>(cpu, isa::rax, cpu.carry() ? 0xff : 0);
  return Outcome::next;
}

// -- CRC32, ADCX, ADOX
Outcome crc32(Vcpu& cpu, const Insn& insn) {
  u64 data = 0, crc = cpu.gpr[insn.op[0].reg & 15];
  if (!cpu::load_operand(cpu, insn, insn.op[1], &data)) return Outcome::fault;
  switch (insn.op[1].bytes) {
    case 1:
      asm("crc32b %b[d], %k[c]" : [c] "+r"(crc) : [d] "r"(data));
      break;
    case 2:
      asm("crc32w %w[d], %k[c]" : [c] "+r"(crc) : [d] "r"(data));
      break;
    case 4:
      asm("crc32l %k[d], %k[c]" : [c] "+r"(crc) : [d] "r"(data));
      break;
    default:
      asm("crc32q %[d], %[c]" : [c] "+r"(crc) : [d] "r"(data));
      break;
  }
  cpu.gpr[insn.op[0].reg & 15] = static_cast<u32>(crc);
  return Outcome::next;
}

template <bool Overflow>
Outcome adx(Vcpu& cpu, const Insn& insn) {  // the carry chain lives in CF, or in OF
  u64 b = 0;
  if (!cpu::load_operand(cpu, insn, insn.op[1], &b)) return Outcome::fault;
  const unsigned bits = insn.op[0].bytes * 8u;
  const u64 a = bits == 32 ? low<u32>(cpu, insn.op[0].reg & 15) : cpu.gpr[insn.op[0].reg & 15];
  const u16 flag = Overflow ? kOverflow : kCarry;
  const u128 sum = u128{a} + b + (cpu.arith & flag ? 1 : 0);
  set_flag(cpu, flag, sum >> bits);
  return cpu::store_operand(cpu, insn, insn.op[0], static_cast<u64>(sum)) ? Outcome::next : Outcome::fault;
}

}  // namespace

cpu::Semantic find_complex_arithmetic(const Insn& insn) {
  switch (insn.mnemonic) {
    case ZYDIS_MNEMONIC_MUL:
      return mul<false>;
    case ZYDIS_MNEMONIC_IMUL:
      return insn.operand_count == 1 ? mul<true> : nullptr;
    case ZYDIS_MNEMONIC_DIV:
      return div<false>;
    case ZYDIS_MNEMONIC_IDIV:
      return div<true>;
    case ZYDIS_MNEMONIC_AAA:
      return ascii_adjust<false>;
    case ZYDIS_MNEMONIC_AAS:
      return ascii_adjust<true>;
    case ZYDIS_MNEMONIC_DAA:
      return decimal_adjust<false>;
    case ZYDIS_MNEMONIC_DAS:
      return decimal_adjust<true>;
    case ZYDIS_MNEMONIC_AAM:
      return aam;
    case ZYDIS_MNEMONIC_AAD:
      return aad;
    case ZYDIS_MNEMONIC_SALC:
      return salc;
    case ZYDIS_MNEMONIC_CRC32:
      return crc32;
    case ZYDIS_MNEMONIC_ADCX:
      return adx<false>;
    case ZYDIS_MNEMONIC_ADOX:
      return adx<true>;
    default:
      return nullptr;
  }
}

}  // namespace trapline::engine::semantics
