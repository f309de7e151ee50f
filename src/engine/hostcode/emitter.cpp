#include "engine/hostcode/emitter.h"

namespace trapline::engine::hostcode {

void Emitter::modrm(u8 reg, const Mem& m, unsigned trailing) {
  const unsigned r = (reg & 7u) << 3;
  if (m.absolute) {
    byte(r | 5);
    note(Fixup::Kind::outside, size_, m.absolute);
    imm32(m.absolute - (pc() + 4 + trailing));
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
  if (sib) byte(m.scale << 6 | (m.index == kNone ? 4u : m.index & 7u) << 3 | (m.base & 7u));
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

void Emitter::vex(u8 map, u8 pp, bool wide, u8 vvvv, u8 opcode, u8 reg, const Mem& m, unsigned trailing) {
  if (m.gs) byte(0x65);
  const unsigned bits = rex_bits(reg, m);
  put(0xC4, (~bits & 7) << 5 | map, (wide ? 0x80 : 0) | (~vvvv & 15) << 3 | pp, opcode);
  modrm(reg, m, trailing);
}

void Emitter::vex(u8 map, u8 pp, bool wide, u8 vvvv, u8 opcode, u8 reg, u8 rm) {
  const unsigned bits = rex_bits(reg, rm);
  put(0xC4, (~bits & 7) << 5 | map, (wide ? 0x80 : 0) | (~vvvv & 15) << 3 | pp, opcode);
  modrm(reg, rm);
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

}  // namespace trapline::engine::hostcode
