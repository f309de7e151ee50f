#include "engine/emit/emitter.h"

namespace trapline::engine::emit {

void Emitter::modrm(u8 reg, const Mem& m, unsigned trailing) {
  const unsigned r = (reg & 7u) << 3;
  if (m.absolute) {
    byte(r | 5);
    note(Fixup::Kind::outside, size(), m.absolute);
    imm32(displacement(m.absolute, pc() + 4 + trailing));
    return;
  }
  if (m.base == kNone) {  // SIB without a base: disp32 follows
    put(r | 4, m.scale << 6 | (m.index == kNone ? 4 : m.index & 7) << 3 | 5);
    imm32(static_cast<u32>(m.disp));
    return;
  }
  const bool sib = m.index != kNone || (m.base & 7) == 4;
  const bool none = m.disp == 0 && (m.base & 7) != 5;
  const bool small = m.disp == static_cast<i8>(m.disp) && !(m.no_disp8 && m.disp != 0);
  byte((none ? 0u : small ? 0x40u : 0x80u) | r | (sib ? 4u : m.base & 7u));
  if (sib) byte(unsigned{m.scale} << 6 | (m.index == kNone ? 4u : m.index & 7u) << 3 | (m.base & 7u));
  if (none) return;
  if (small)
    byte(static_cast<u8>(m.disp));
  else
    imm32(static_cast<u32>(m.disp));
}

unsigned Emitter::rex_bits(u8 reg, const Mem& m) {
  return (reg & 8u) >> 1 | (m.index != kNone ? (m.index & 8u) >> 2 : 0) | (m.base != kNone ? (m.base & 8u) >> 3 : 0);
}

void Emitter::op(unsigned prefix, bool wide, u32 opcode, u8 reg, const Mem& m, unsigned trailing, bool rex) {
  if (m.gs) byte(0x65);
  if (prefix) byte(prefix);
  const unsigned bits = (wide ? 8 : 0) | rex_bits(reg, m);
  if (bits || rex) byte(0x40 | bits);
  if (opcode >> 16) byte(opcode >> 16);
  if (opcode >> 8) byte(opcode >> 8 & 255);
  byte(opcode & 255);
  modrm(reg, m, trailing);
}

void Emitter::op(unsigned prefix, bool wide, u32 opcode, u8 reg, u8 rm, bool rex) {
  if (prefix) byte(prefix);
  const unsigned bits = (wide ? 8 : 0) | rex_bits(reg, rm);
  if (bits || rex) byte(0x40 | bits);
  if (opcode >> 16) byte(opcode >> 16);
  if (opcode >> 8) byte(opcode >> 8 & 255);
  byte(opcode & 255);
  modrm(reg, rm);
}

// `rex`: the bits R, X and B.
void Emitter::vex_prefix(const VexOp& op, u8 vvvv, unsigned rex) {
  const unsigned tail = (~vvvv & 15u) << 3 | (op.length ? 4u : 0u) | static_cast<u8>(op.prefix);
  if (op.map == VexOp::Map::m0f && !op.wide && !(rex & 3))
    put(0xC5, (rex & 4 ? 0u : 0x80u) | tail, op.opcode);
  else
    put(0xC4, (~rex & 7u) << 5 | static_cast<u8>(op.map), (op.wide ? 0x80u : 0u) | tail, op.opcode);
}

void Emitter::vex(const VexOp& op, u8 vvvv, u8 reg, const Mem& m, unsigned trailing) {
  if (m.gs) byte(0x65);
  vex_prefix(op, vvvv, rex_bits(reg, m));
  modrm(reg, m, trailing);
}

void Emitter::vex(const VexOp& op, u8 vvvv, u8 reg, u8 rm) {
  vex_prefix(op, vvvv, rex_bits(reg, rm));
  modrm(reg, rm);
}

void Emitter::evex(const VexOp& op, u8 reg, const Mem& m) {
  constexpr unsigned kNoVvvv = 15 << 3, kNoVvvv4 = 8;
  if (m.gs) byte(0x65);
  put(0x62, (~rex_bits(reg, m) & 7u) << 5 | (reg & 16 ? 0u : 0x10u) | static_cast<u8>(op.map),
      (op.wide ? 0x80u : 0u) | kNoVvvv | 4u | static_cast<u8>(op.prefix), unsigned{op.length} << 5 | kNoVvvv4,
      op.opcode);
  Mem unscaled = m;
  unscaled.no_disp8 = true;
  modrm(reg, unscaled);
}

void Emitter::rep(StringInsn insn, unsigned bytes, bool while_equal) {
  if (bytes == 2) byte(0x66);
  byte(while_equal ? 0xF3 : 0xF2);
  if (bytes == 8) byte(0x48);
  byte(static_cast<u8>(insn) | unsigned{bytes != 1});
}

void Emitter::mov_imm(u8 to, u64 v) {
  if (v <= 0xffffffff) {
    if (to & 8) byte(0x41);
    byte(0xB8 | (to & 7));
    imm32(v);
  } else if (v == static_cast<u64>(static_cast<i64>(static_cast<i32>(v)))) {
    put(0x48 | (to & 8) >> 3, 0xC7, 0xC0 | (to & 7));
    imm32(v);
  } else {
    mov_imm64(to, v);
  }
}

void Emitter::mov_imm64(u8 to, u64 v) {
  put(0x48 | (to & 8) >> 3, 0xB8 | (to & 7));
  imm64(v);
}

}  // namespace trapline::engine::emit
