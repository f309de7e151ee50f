// Prefix, REX, VEX and EVEX layouts: Intel SDM Vol. 2A sections 2.1, 2.2, 2.3, 2.7.
#include "engine/emit/reencode.h"

namespace trapline::engine::emit {

namespace {

struct Extension {  // of the register fields, as in REX; bit 4 for EVEX
  u8 r, x, b;
};

Extension extension_of(const Fields& f, bool modrm) {
  if (!modrm) return {0, 0, static_cast<u8>(f.opcode_reg >> 3 & 1)};
  const u8 r = f.reg >> 3 & 1;
  if (!f.memory) return {r, static_cast<u8>(f.rm >> 4 & 1), static_cast<u8>(f.rm >> 3 & 1)};
  const unsigned bits = Emitter::rex_bits(0, f.mem);
  return {r, static_cast<u8>(bits >> 1 & 1), static_cast<u8>(bits & 1)};
}

bool has_modrm(const Decoded& d) { return d.insn.attributes & ZYDIS_ATTRIB_HAS_MODRM; }

void put_legacy(const Decoded& d, const Fields& f, bool wide, Emitter& out) {
  // 66 comes before F2 and F3, and all before REX. In 16-bit code it selects 32 bits, and its absence 16.
  const bool code16 = d.insn.machine_mode == ZYDIS_MACHINE_MODE_LEGACY_16;
  bool operand_size = code16 && d.insn.mnemonic == ZYDIS_MNEMONIC_CRC32 && d.insn.operand_width == 16;
  unsigned mandatory = 0;
  for (u8 i = 0; i < d.insn.raw.prefix_count; i++) {
    const auto& p = d.insn.raw.prefixes[i];
    if (p.value == 0x66)
      operand_size |= code16 ? p.type == ZYDIS_PREFIX_TYPE_MANDATORY : p.type != ZYDIS_PREFIX_TYPE_IGNORED;
    if (p.type == ZYDIS_PREFIX_TYPE_MANDATORY && (p.value == 0xF2 || p.value == 0xF3)) mandatory = p.value;
  }
  if (d.insn.attributes & ZYDIS_ATTRIB_HAS_LOCK) out.byte(0xF0);
  if (operand_size) out.byte(0x66);
  if (mandatory) out.byte(mandatory);
  const Extension e = extension_of(f, has_modrm(d));
  const unsigned rex = (wide ? 8u : 0u) | e.r << 2 | (f.memory ? e.x : 0u) << 1 | e.b;
  if (rex || f.force_rex) out.byte(0x40 | rex);
  if (d.insn.opcode_map != ZYDIS_OPCODE_MAP_DEFAULT) out.byte(0x0F);
  if (d.insn.opcode_map == ZYDIS_OPCODE_MAP_0F38) out.byte(0x38);
  if (d.insn.opcode_map == ZYDIS_OPCODE_MAP_0F3A) out.byte(0x3A);
  out.byte(has_opcode_register(d) ? (d.insn.opcode & ~7u) | (f.opcode_reg & 7u) : d.insn.opcode);
}

void put_vex(const Decoded& d, const Fields& f, bool wide, Emitter& out) {
  const auto& v = d.insn.raw.vex;
  const Extension e = extension_of(f, true);
  out.put(0xC4, (e.r ? 0 : 0x80) | (f.memory && e.x ? 0 : 0x40) | (e.b ? 0 : 0x20) | v.m_mmmm,
          (wide ? 0x80 : 0) | (~f.vvvv & 15) << 3 | v.L << 2 | v.pp, d.insn.opcode);
}

void put_evex(const Decoded& d, const Fields& f, bool wide, Emitter& out) {
  const auto& v = d.insn.raw.evex;
  const Extension e = extension_of(f, true);
  out.put(0x62, (e.r ? 0 : 0x80) | (e.x ? 0 : 0x40) | (e.b ? 0 : 0x20) | (f.reg & 16 ? 0 : 0x10) | v.mmm,
          (wide ? 0x80 : 0) | (~f.vvvv & 15) << 3 | 4 | v.pp,
          v.z << 7 | v.L2 << 6 | v.L << 5 | v.b << 4 | (f.vvvv & 16 ? 0 : 8) | v.aaa, d.insn.opcode);
}

unsigned immediate_bytes(const Decoded& d) { return (d.insn.raw.imm[0].size + d.insn.raw.imm[1].size) / 8u; }

}  // namespace

bool has_opcode_register(const Decoded& d) {
  for (u8 i = 0; i < d.insn.operand_count; i++)
    if (d.op[i].type == ZYDIS_OPERAND_TYPE_REGISTER && d.op[i].encoding == ZYDIS_OPERAND_ENCODING_OPCODE &&
        is_gpr(d.op[i]))
      return true;
  return false;
}

Fields guest_fields(const Decoded& d) {
  Fields f;
  f.reg = d.insn.raw.modrm.reg;
  f.rm = d.insn.raw.modrm.rm;
  f.memory = has_modrm(d) && d.insn.raw.modrm.mod != 3;
  for (u8 i = 0; i < d.insn.operand_count; i++) {
    const ZydisDecodedOperand& op = d.op[i];
    if (op.type != ZYDIS_OPERAND_TYPE_REGISTER || is_gpr(op)) continue;
    const u8 id = static_cast<u8>(ZydisRegisterGetId(op.reg.value));
    if (op.encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG) f.reg = id;
    if (op.encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM) f.rm = id;
    if (op.encoding == ZYDIS_OPERAND_ENCODING_NDSNDD) f.vvvv = id;
  }
  return f;
}

void reencode_with(const Decoded& d, const u8* source, const Fields& f, bool wide, Emitter& out) {
  switch (d.insn.encoding) {
    case ZYDIS_INSTRUCTION_ENCODING_VEX:
      put_vex(d, f, wide, out);
      break;
    case ZYDIS_INSTRUCTION_ENCODING_EVEX:
      put_evex(d, f, wide, out);
      break;
    default:
      put_legacy(d, f, wide, out);
  }
  const unsigned tail = immediate_bytes(d);
  if (has_modrm(d)) {
    if (f.memory) {
      Mem m = f.mem;
      m.no_disp8 = d.insn.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX;
      out.modrm(f.reg, m, tail);
    } else {
      out.modrm(f.reg, f.rm);
    }
  }
  for (unsigned i = d.insn.length - tail; i < d.insn.length; i++) out.byte(source[i] & immediate_mask(d));
}

bool reencode(const Decoded& d, const u8* source, const Fields& f, Emitter& out) {
  switch (d.insn.encoding) {
    case ZYDIS_INSTRUCTION_ENCODING_LEGACY:
      reencode_with(d, source, f, (d.insn.attributes & ZYDIS_ATTRIB_HAS_REX) && d.insn.raw.rex.W, out);
      return true;
    case ZYDIS_INSTRUCTION_ENCODING_VEX:
    case ZYDIS_INSTRUCTION_ENCODING_EVEX: {
      const std::optional<bool> wide = w_in_64_bit_mode(d, source);
      if (wide) reencode_with(d, source, f, *wide, out);
      return wide.has_value();
    }
    default:
      return false;
  }
}

}  // namespace trapline::engine::emit
