// Host machine code into a buffer whose final address is known. Encodings: Intel SDM Vol. 2A chapter 2.
//
// An own emitter and no assembler library: most of what the translator emits is a guest instruction with some fields
// replaced, for which it has the raw parts already; the rest is a dozen forms.
#pragma once

#include <array>
#include <cstring>
#include <span>
#include <vector>

#include "base/types.h"

namespace trapline::engine::hostcode {

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

// A field of emitted code that is another one when the code, or the guest code it was made from, lies elsewhere.
struct Fixup {
  enum class Kind : u8 {
    outside,  // disp32 to something that stays where it is
    cold,
    hot,        // disp32 to the block's other part; value: offset there
    site,       // imm64: &ExitStub; value: its number
    linear,     // imm64: a linear address of the guest
    look_up,    // imm64: slot of the read table for `size` bytes at the linear address `value`
    look_up_w,  // of the write table
    jump,       // disp32 of the jump cache's slot for the linear address `value`
    jump_entry  // of its second half
  };
  Kind kind;
  u8 size = 0;
  u32 at;
  u64 value;
  bool names_linear() const { return kind >= Kind::linear; }
};

class Emitter {
 public:
  static constexpr u32 kCapacity = 64 * 1024;
  // `fixups`: noted for code that may be moved; null: not.
  void begin(u64 address, std::vector<Fixup>* fixups = nullptr) { base_ = address, size_ = 0, fixups_ = fixups; }
  void note(Fixup::Kind kind, u32 at, u64 value, u8 size = 0) {
    if (fixups_) fixups_->push_back({kind, size, at, value});
  }
  u64 pc() const { return base_ + size_; }
  u32 size() const { return size_; }
  const u8* data() const { return bytes_.data(); }
  bool overflowed() const { return size_ > kCapacity; }

  void byte(unsigned b) {
    if (size_ < kCapacity) bytes_[size_] = static_cast<u8>(b);
    size_++;
  }
  template <class... B>
  void put(B... b) {
    (byte(static_cast<unsigned>(b)), ...);
  }
  void imm32(u64 v) { put(v & 255, v >> 8 & 255, v >> 16 & 255, v >> 24 & 255); }
  void imm64(u64 v) { imm32(v), imm32(v >> 32); }
  void append(std::span<const u8> code) {
    if (size_ + code.size() <= kCapacity) std::memcpy(&bytes_[size_], code.data(), code.size());
    size_ += static_cast<u32>(code.size());
  }
  void patch(u32 at, const void* bytes, u32 size) {
    if (at + size <= kCapacity) std::memcpy(&bytes_[at], bytes, size);
  }
  void patch8(u32 at, u8 v) {
    if (at < kCapacity) bytes_[at] = v;
  }
  void patch32(u32 at, u32 v) {
    for (u32 i = 0; i < 4 && at + i < kCapacity; i++) bytes_[at + i] = static_cast<u8>(v >> 8 * i);
  }

  // ModRM with SIB and displacement; `reg` and the operand by their low three bits. `trailing`: immediate bytes that
  // follow.
  void modrm(u8 reg, const Mem& m, unsigned trailing = 0);
  void modrm(u8 reg, u8 rm) { byte(0xC0 | (reg & 7) << 3 | (rm & 7)); }
  static unsigned rex_bits(u8 reg, const Mem& m);
  static unsigned rex_bits(u8 reg, u8 rm) { return (reg & 8) >> 1 | (rm & 8) >> 3; }

  // [prefix] [REX] opcode ModRM; `opcode` holds up to three bytes, first one highest.
  void op(unsigned prefix, bool wide, u32 opcode, u8 reg, const Mem& m, unsigned trailing = 0, bool rex = false);
  void op(unsigned prefix, bool wide, u32 opcode, u8 reg, u8 rm, bool rex = false);
  // VEX.128; map 1: 0F, 2: 0F38, 3: 0F3A; pp 0: none, 1: 66, 2: F3, 3: F2.
  void vex(u8 map, u8 pp, bool wide, u8 vvvv, u8 opcode, u8 reg, const Mem& m, unsigned trailing = 0);
  void vex(u8 map, u8 pp, bool wide, u8 vvvv, u8 opcode, u8 reg, u8 rm);

  // Forward jumps; each is bound once, to the place behind what it leaps over.
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
  bool reaches(Near jump) const { return size_ - (jump.at + 1) <= 127; }
  void bind(Near jump) { patch8(jump.at, static_cast<u8>(size_ - (jump.at + 1))); }
  void bind(Far jump) { patch32(jump.at, size_ - (jump.at + 4)); }

  // What the translator says all the time. None touches the flags.
  void mov(u8 to, u8 from) { op(0, true, 0x8B, to, from); }
  void mov32(u8 to, u8 from) { op(0, false, 0x8B, to, from); }
  void load(u8 to, const Mem& m) { op(0, true, 0x8B, to, m); }
  void load32(u8 to, const Mem& m) { op(0, false, 0x8B, to, m); }
  void store(const Mem& m, u8 from) { op(0, true, 0x89, from, m); }
  void store32(const Mem& m, u8 from) { op(0, false, 0x89, from, m); }
  void store_imm32(const Mem& m, u32 v, bool wide) { op(0, wide, 0xC7, 0, m, 4), imm32(v); }
  void lea(u8 to, const Mem& m, bool wide = true) { op(0, wide, 0x8D, to, m); }
  void mov_imm(u8 to, u64 v);
  void mov_imm64(u8 to, u64 v);  // never a shorter form
  void pext(u8 to, u8 from, const Mem& mask) { vex(2, 2, true, from, 0xF5, to, mask); }
  void pext(u8 to, u8 from, u8 mask) { vex(2, 2, true, from, 0xF5, to, mask); }
  void rorx(u8 to, u8 from, u8 count) { vex(3, 3, true, 0, 0xF0, to, from), byte(count); }
  void rorx32(u8 to, u8 from, u8 count) { vex(3, 3, false, 0, 0xF0, to, from), byte(count); }
  void shrx(u8 to, u8 from, u8 count) { vex(2, 3, true, count, 0xF7, to, from); }  // by the register `count`
  void shrx(u8 to, const Mem& from, u8 count) { vex(2, 3, true, count, 0xF7, to, from); }
  void shlx(u8 to, u8 from, u8 count) { vex(2, 1, true, count, 0xF7, to, from); }
  void sarx(u8 to, u8 from, u8 count) { vex(2, 2, true, count, 0xF7, to, from); }
  void jmp(u64 target) {
    byte(0xE9);
    note(Fixup::Kind::outside, size_, target);
    imm32(target - (pc() + 4));
  }
  void jmp_reg(u8 reg) { op(0, false, 0xFF, 4, reg); }
  void jmp_mem(const Mem& m) { op(0, false, 0xFF, 4, m); }
  void call_reg(u8 reg) { op(0, false, 0xFF, 2, reg); }
  void movzx8(u8 to, const Mem& m) { op(0, false, 0x0FB6, to, m); }
  void movzx8(u8 to, u8 from) { op(0, false, 0x0FB6, to, from, true); }
  void movzx16(u8 to, const Mem& m) { op(0, false, 0x0FB7, to, m); }
  void store16(const Mem& m, u8 from) { op(0x66, false, 0x89, from, m); }
  void lahf_seto() { put(0x9F, 0x0F, 0x90, 0xC0); }  // LAHF; SETO AL
  void pause() { put(0xF3, 0x90); }
  void ldmxcsr(const Mem& m) { op(0, false, 0x0FAE, 2, m); }
  void stmxcsr(const Mem& m) { op(0, false, 0x0FAE, 3, m); }
  void fnstcw(const Mem& m) { op(0, false, 0xD9, 7, m); }
  void fldcw(const Mem& m) { op(0, false, 0xD9, 5, m); }
  void push(u8 reg) { put_rex_b(reg), byte(0x50 | (reg & 7)); }
  void pop(u8 reg) { put_rex_b(reg), byte(0x58 | (reg & 7)); }
  void ret() { byte(0xC3); }
  // These do touch them.
  void add(u8 to, u8 from) { op(0, true, 0x03, to, from); }
  void exclusive_or(u8 to, u8 from) { op(0, true, 0x33, to, from); }
  void and_imm32(u8 reg, u32 v) { op(0, false, 0x81, 4, reg), imm32(v); }  // clears the upper half
  void or_imm32(u8 reg, u32 v) { op(0, true, 0x81, 1, reg), imm32(v); }
  void complement(u8 reg) { op(0, true, 0xF7, 2, reg); }
  void neg(u8 reg) { op(0, true, 0xF7, 3, reg); }
  void cmp(u8 a, u8 b) { op(0, true, 0x3B, a, b); }
  void cmp_imm32(u8 reg, u32 v) { op(0, true, 0x81, 7, reg), imm32(v); }
  void cmp_imm8(u8 reg, i8 v) { op(0, true, 0x83, 7, reg), byte(static_cast<u8>(v)); }
  void test(u8 a, u8 b) { op(0, true, 0x85, a, b); }
  void test_imm32(const Mem& m, u32 v) { op(0, false, 0xF7, 0, m, 4), imm32(v); }
  void shl(u8 reg, u8 by) { op(0, true, 0xC1, 4, reg), byte(by); }
  void shr(u8 reg, u8 by) { op(0, true, 0xC1, 5, reg), byte(by); }
  void sar(u8 reg, u8 by) { op(0, true, 0xC1, 7, reg), byte(by); }

 private:
  Near near() { return byte(0), Near{size_ - 1}; }
  Far far() { return imm32(0), Far{size_ - 4}; }
  void put_rex_b(u8 reg) {
    if (reg & 8) byte(0x41);
  }

  std::array<u8, kCapacity> bytes_;
  u64 base_ = 0;
  u32 size_ = 0;
  std::vector<Fixup>* fixups_ = nullptr;
};

}  // namespace trapline::engine::hostcode
