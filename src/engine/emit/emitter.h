// Host machine code into a buffer whose final address is known. Encodings: Intel SDM Vol. 2A chapter 2.
//
// An own emitter and no assembler library: most of what the translator emits is a guest instruction with some fields
// replaced, for which it has the raw parts already; the rest is the forms named here and in vector_forms.h.
#pragma once

#include "base/invariant.h"
#include "engine/emit/code_buffer.h"
#include "engine/emit/displacement.h"

namespace trapline::engine::emit {

enum Reg : u8 { rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15 };
inline constexpr u8 kNone = 0xff;

// Conditions as encodings have them.
enum class Condition : u8 { below = 2, zero = 4, not_zero = 5, above = 7 };

constexpr Condition opposite(Condition c) { return static_cast<Condition>(static_cast<u8>(c) ^ 1); }

// A memory operand of host code: [base + index << scale + disp], or the 8 bytes at `absolute` (RIP-relative: within
// 2 GiB of the code).
struct Mem {
  u8 base = kNone, index = kNone, scale = 0;
  bool gs = false;
  bool no_disp8 = false;  // EVEX scales it, or a Fixup names it
  i32 disp = 0;
  u64 absolute = 0;
};
inline Mem at(u8 base, i32 disp = 0) { return {.base = base, .disp = disp}; }
inline Mem at(u8 base, u8 index, u8 scale, i32 disp = 0) {
  return {.base = base, .index = index, .scale = scale, .disp = disp};
}
template <class T>
Mem var(const T* p) {
  return {.absolute = reinterpret_cast<u64>(p)};
}

// What VEX and EVEX say of an instruction besides its registers.
struct VexOp {
  enum class Map : u8 { m0f = 1, m0f38, m0f3a };
  enum class Prefix : u8 { none, x66, f3, f2 };
  Map map = Map::m0f;
  Prefix prefix = Prefix::none;
  bool wide = false;  // W
  u8 length = 0;      // L: 0 128 bits, 1 256, 2 512 (EVEX alone)
  u8 opcode = 0;
};

// Bit tests with the number in a register.
enum class BitTest : u16 { bt = 0x0FA3, bts = 0x0FAB, btr = 0x0FB3, btc = 0x0FBB };

// String instructions by their opcode for bytes.
enum class StringInsn : u8 { movs = 0xA4, cmps = 0xA6, stos = 0xAA, lods = 0xAC, scas = 0xAE };

class Emitter : public CodeBuffer {
 public:
  // -- Parts of encodings
  // ModRM with SIB and displacement; `reg` and the operand by their low three bits. `trailing`: immediate bytes that
  // follow.
  void modrm(u8 reg, const Mem& m, unsigned trailing = 0);
  void modrm(u8 reg, u8 rm) { byte(0xC0u | (reg & 7u) << 3 | (rm & 7u)); }
  static unsigned rex_bits(u8 reg, const Mem& m);
  static unsigned rex_bits(u8 reg, u8 rm) { return (reg & 8) >> 1 | (rm & 8) >> 3; }

  // [prefix] [REX] opcode ModRM; `opcode` holds up to three bytes, first one highest.
  void op(unsigned prefix, bool wide, u32 opcode, u8 reg, const Mem& m, unsigned trailing = 0, bool rex = false);
  void op(unsigned prefix, bool wide, u32 opcode, u8 reg, u8 rm, bool rex = false);
  // By VEX in the shorter of its forms that can say it. `vvvv`: 0 where the instruction has none.
  void vex(const VexOp& op, u8 vvvv, u8 reg, const Mem& m, unsigned trailing = 0);
  void vex(const VexOp& op, u8 vvvv, u8 reg, u8 rm);
  // By EVEX: without mask, broadcast and a third register.
  void evex(const VexOp& op, u8 reg, const Mem& m);

  // -- Forward jumps; each is bound once, to the place behind what it leaps over.
  struct Near {  // 8-bit displacement: 127 bytes
    u32 at;
  };
  struct Far {
    u32 at;
  };
  [[nodiscard]] Near jrcxz() { return byte(0xE3), near(); }  // if RCX is 0; looks at no flag
  [[nodiscard]] Near jmp_near() { return byte(0xEB), near(); }
  [[nodiscard]] Far jmp_far() { return byte(0xE9), far(); }
  [[nodiscard]] Far jcc(Condition c) { return put(0x0F, 0x80 | static_cast<u8>(c)), far(); }
  // LEA of the place where it is bound.
  [[nodiscard]] Far lea_of(u8 to) { return put(0x48 | (to & 8) >> 1, 0x8D, (to & 7) << 3 | 5), far(); }
  void bind(Near jump) {
    const bool bound = try_bind(jump);
    INVARIANT(bound, "a short jump over {} bytes", size() - (jump.at + 1));
  }
  // False: it does not reach so far.
  [[nodiscard]] bool try_bind(Near jump) {
    const u32 distance = size() - (jump.at + 1);
    patch8(jump.at, static_cast<u8>(distance));
    return distance <= 127;
  }
  void bind(Far jump) { patch32(jump.at, size() - (jump.at + 4)); }
  // To any address within 2 GiB, backwards too.
  void bind(Far jump, u64 target) { patch32(jump.at, displacement(target, address_of(jump.at) + 4)); }

  // -- What the translator says all the time. None touches the flags.
  void mov(u8 to, u8 from, bool wide = true) { op(0, wide, 0x8B, to, from); }
  void mov32(u8 to, u8 from) { mov(to, from, false); }
  void mov16(u8 to, u8 from) { op(0x66, false, 0x8B, to, from); }  // merges, as mov8
  void mov8(u8 to, u8 from) { op(0, false, 0x8A, to, from, named_by_rex(to) || named_by_rex(from)); }
  void load(u8 to, const Mem& m) { op(0, true, 0x8B, to, m); }
  void load32(u8 to, const Mem& m) { op(0, false, 0x8B, to, m); }
  void store(const Mem& m, u8 from) { op(0, true, 0x89, from, m); }
  void store32(const Mem& m, u8 from) { op(0, false, 0x89, from, m); }
  void store16(const Mem& m, u8 from) { op(0x66, false, 0x89, from, m); }
  // Of 1, 2, 4 or 8 bytes. Loads of 1 and 2 merge.
  void load_sized(unsigned bytes, u8 to, const Mem& m) { sized(bytes, 0x8A, to, m); }
  void store_sized(unsigned bytes, const Mem& m, u8 from) { sized(bytes, 0x88, from, m); }
  void store_imm8(const Mem& m, u8 v) { op(0, false, 0xC6, 0, m, 1), byte(v); }
  void store_imm32(const Mem& m, u32 v, bool wide) { op(0, wide, 0xC7, 0, m, 4), imm32(v); }
  void lea(u8 to, const Mem& m, bool wide = true) { op(0, wide, 0x8D, to, m); }
  void mov_imm(u8 to, u64 v);
  void mov_imm64(u8 to, u64 v);  // never a shorter form
  void movzx8(u8 to, const Mem& m) { op(0, false, 0x0FB6, to, m); }
  void movzx8(u8 to, u8 from) { op(0, false, 0x0FB6, to, from, named_by_rex(from)); }
  void movzx_ah(u8 to) { put(0x0F, 0xB6), modrm(to, rsp); }  // `to` below R8
  void movzx16(u8 to, const Mem& m) { op(0, false, 0x0FB7, to, m); }
  void movzx16(u8 to, u8 from) { op(0, false, 0x0FB7, to, from); }
  // To 64 bits, from 2, 4 or 8 bytes.
  template <class Source>
  void movsx(unsigned bytes, u8 to, const Source& from) {
    op(0, true, bytes == 2 ? 0x0FBF : bytes == 4 ? 0x63 : 0x8B, to, from);
  }
  void write_gs_base(u8 from) { op(0xF3, true, 0x0FAE, 3, from); }
  void pext(u8 to, u8 from, const Mem& mask) { vex(kPext, from, to, mask); }
  void pext(u8 to, u8 from, u8 mask) { vex(kPext, from, to, mask); }
  void rorx(u8 to, u8 from, u8 count) { vex(rorx_op(true), 0, to, from), byte(count); }
  void rorx32(u8 to, u8 from, u8 count) { vex(rorx_op(false), 0, to, from), byte(count); }
  void shrx(u8 to, u8 from, u8 count) { vex(shift_op(VexOp::Prefix::f2), count, to, from); }  // by the register `count`
  void shrx(u8 to, const Mem& from, u8 count) { vex(shift_op(VexOp::Prefix::f2), count, to, from); }
  void shlx(u8 to, u8 from, u8 count) { vex(shift_op(VexOp::Prefix::x66), count, to, from); }
  void sarx(u8 to, u8 from, u8 count) { vex(shift_op(VexOp::Prefix::f3), count, to, from); }
  void jmp(u64 target) {
    byte(0xE9);
    note(Fixup::Kind::outside, size(), target);
    imm32(displacement(target, pc() + 4));
  }
  void jmp_reg(u8 reg) { op(0, false, 0xFF, 4, reg); }
  void jmp_mem(const Mem& m) { op(0, false, 0xFF, 4, m); }
  void call_reg(u8 reg) { op(0, false, 0xFF, 2, reg); }
  void push(u8 reg) { put_rex_b(reg), byte(0x50 | (reg & 7)); }
  void pop(u8 reg) { put_rex_b(reg), byte(0x58 | (reg & 7)); }
  void ret() { byte(0xC3); }
  void lahf_seto() { put(0x9F, 0x0F, 0x90, 0xC0); }  // LAHF; SETO AL: all arithmetic flags are in AX
  void pause() { put(0xF3, 0x90); }
  void hlt() { byte(0xF4); }
  void lfence() { put(0x0F, 0xAE, 0xE8); }
  void rdtsc() { put(0x0F, 0x31); }
  void ldmxcsr(const Mem& m) { op(0, false, 0x0FAE, 2, m); }
  void stmxcsr(const Mem& m) { op(0, false, 0x0FAE, 3, m); }
  void fldenv(const Mem& m) { op(0, false, 0xD9, 4, m); }
  void fldcw(const Mem& m) { op(0, false, 0xD9, 5, m); }
  void fnstenv(const Mem& m) { op(0, false, 0xD9, 6, m); }
  void fnstcw(const Mem& m) { op(0, false, 0xD9, 7, m); }
  void crc32(u8 to, u8 from) { op(0xF2, true, 0x0F38F1, to, from); }

  // -- These do touch them.
  void add7f_sahf() { put(0x04, 0x7F, 0x9E); }  // ADD AL, 7F: OF; SAHF: the others. Undoes lahf_seto()
  void add(u8 to, u8 from) { op(0, true, 0x03, to, from); }
  void add(u8 to, const Mem& m) { op(0, true, 0x03, to, m); }
  void exclusive_or(u8 to, u8 from) { op(0, true, 0x33, to, from); }
  void exclusive_or32(u8 to, const Mem& m) { op(0, false, 0x33, to, m); }
  void and_mem(u8 to, const Mem& m) { op(0, true, 0x23, to, m); }
  void and_imm32(u8 reg, u32 v) { op(0, false, 0x81, 4, reg), imm32(v); }  // clears the upper half
  void or_imm32(u8 reg, u32 v) { op(0, true, 0x81, 1, reg), imm32(v); }
  void or_imm16(const Mem& m, u16 v) { op(0x66, false, 0x81, 1, m, 2), imm16(v); }
  void complement(u8 reg) { op(0, true, 0xF7, 2, reg); }  // NOT, which is the exception here
  void neg(u8 reg) { op(0, true, 0xF7, 3, reg); }
  void inc_sized(unsigned bytes, u8 reg) { op(bytes == 2 ? 0x66 : 0, bytes == 8, 0xFF, 0, reg); }
  void dec_sized(unsigned bytes, u8 reg) { op(bytes == 2 ? 0x66 : 0, bytes == 8, 0xFF, 1, reg); }
  void cmp(u8 a, u8 b) { op(0, true, 0x3B, a, b); }
  void cmp(u8 a, const Mem& m) { op(0, true, 0x3B, a, m); }
  void cmp32(u8 a, const Mem& m) { op(0, false, 0x3B, a, m); }
  void cmp_sized(unsigned bytes, u8 reg, const Mem& m) { sized(bytes, 0x3A, reg, m); }
  void cmp_imm32(u8 reg, u32 v) { op(0, true, 0x81, 7, reg), imm32(v); }
  void cmp_imm8(u8 reg, i8 v) { op(0, true, 0x83, 7, reg), byte(static_cast<u8>(v)); }
  void cmp32_imm8(const Mem& m, i8 v) { op(0, false, 0x83, 7, m, 1), byte(static_cast<u8>(v)); }
  void test(u8 a, u8 b) { op(0, true, 0x85, a, b); }
  void test32(const Mem& m, u8 reg) { op(0, false, 0x85, reg, m); }
  void test_imm32(const Mem& m, u32 v) { op(0, false, 0xF7, 0, m, 4), imm32(v); }
  void shl(u8 reg, u8 by) { op(0, true, 0xC1, 4, reg), byte(by); }
  void shr(u8 reg, u8 by) { op(0, true, 0xC1, 5, reg), byte(by); }
  void sar(u8 reg, u8 by) { op(0, true, 0xC1, 7, reg), byte(by); }
  void tzcnt(u8 to, u8 from) { op(0xF3, true, 0x0FBC, to, from); }
  void blsr(u8 to, u8 from) { vex({.map = VexOp::Map::m0f38, .wide = true, .opcode = 0xF3}, to, 1, from); }
  // Of 2, 4 or 8 bytes; the operand is memory or a register.
  template <class Operand>
  void bit_test(BitTest test, unsigned bytes, const Operand& operand, u8 number) {
    op(bytes == 2 ? 0x66 : 0, bytes == 8, static_cast<u16>(test), number, operand);
  }
  // Elements of 1, 2, 4 or 8 bytes. REPNE, if not `while_equal`, which the moves do not ask.
  void rep(StringInsn insn, unsigned bytes, bool while_equal = true);
  void lock() { byte(0xF0); }  // the prefix of what comes next

 private:
  static constexpr VexOp kPext{VexOp::Map::m0f38, VexOp::Prefix::f3, true, 0, 0xF5};
  static constexpr VexOp rorx_op(bool wide) { return {VexOp::Map::m0f3a, VexOp::Prefix::f2, wide, 0, 0xF0}; }
  static constexpr VexOp shift_op(VexOp::Prefix which) { return {VexOp::Map::m0f38, which, true, 0, 0xF7}; }
  // Opcodes whose lowest bit says that the operand is wider than a byte.
  void sized(unsigned bytes, u8 opcode, u8 reg, const Mem& m) {
    op(bytes == 2 ? 0x66 : 0, bytes == 8, opcode | u32{bytes != 1}, reg, m, 0, bytes == 1 && named_by_rex(reg));
  }
  // SPL, BPL, SIL and DIL: without REX they are AH, CH, DH and BH.
  static constexpr bool named_by_rex(u8 reg) { return reg >= rsp && reg <= rdi; }
  void vex_prefix(const VexOp& op, u8 vvvv, unsigned rex);
  Near near() { return byte(0), Near{size() - 1}; }
  Far far() { return imm32(0), Far{size() - 4}; }
  void put_rex_b(u8 reg) {
    if (reg & 8) byte(0x41);
  }
};

}  // namespace trapline::engine::emit
