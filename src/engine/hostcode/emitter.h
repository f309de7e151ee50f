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

 private:
  std::array<u8, kCapacity> bytes_;
  u64 base_ = 0;
  u32 size_ = 0;
  std::vector<Fixup>* fixups_ = nullptr;
};

}  // namespace trapline::engine::hostcode
