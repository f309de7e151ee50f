// Encodings: Intel SDM Vol. 2A sections 2.1 (legacy, REX), 2.3 (VEX), 2.7 (EVEX).
#include "engine/vector/encode.h"

namespace trapline::engine::vector {

namespace {

constexpr u8 kRsi = 6;

// Register numbers by encoding field, with the general registers replaced.
struct Fields {
  u8 reg, rm, vvvv = 0;
  bool memory;
};

Fields fields_of(const Decoded& d) {
  const auto& raw = d.insn.raw;
  Fields f{.reg = raw.modrm.reg, .rm = raw.modrm.rm, .memory = raw.modrm.mod != 3};
  for (u8 i = 0; i < d.insn.operand_count; i++) {
    const ZydisDecodedOperand& op = d.op[i];
    if (op.type != ZYDIS_OPERAND_TYPE_REGISTER) continue;
    const u8 id = static_cast<u8>(ZydisRegisterGetId(op.reg.value));
    if (op.encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG) f.reg = is_gpr(op) ? kRegField : id;
    if (op.encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM) f.rm = is_gpr(op) ? kRmField : id;
    if (op.encoding == ZYDIS_OPERAND_ENCODING_NDSNDD) f.vvvv = id;
  }
  if (f.memory) f.rm = kRsi;
  return f;
}

void put_modrm(const Fields& f, Code& out) { out.byte((f.memory ? 0 : 0xC0) | (f.reg & 7) << 3 | (f.rm & 7)); }

void put_legacy(const Decoded& d, const Fields& f, bool wide, Code& out) {
  bool operand_size = d.insn.mnemonic == ZYDIS_MNEMONIC_CRC32 && d.insn.operand_width == 16;
  for (u8 i = 0; i < d.insn.raw.prefix_count; i++)
    if (d.insn.raw.prefixes[i].type == ZYDIS_PREFIX_TYPE_MANDATORY) {
      if (d.insn.raw.prefixes[i].value == 0x66)
        operand_size = true;
      else
        out.byte(d.insn.raw.prefixes[i].value);
    }
  if (operand_size) out.byte(0x66);
  const unsigned rex = (wide ? 8 : 0) | (f.reg & 8) >> 1 | (f.rm & 8) >> 3;
  if (rex) out.byte(0x40 | rex);
  if (d.insn.opcode_map != ZYDIS_OPCODE_MAP_DEFAULT) out.byte(0x0F);
  if (d.insn.opcode_map == ZYDIS_OPCODE_MAP_0F38) out.byte(0x38);
  if (d.insn.opcode_map == ZYDIS_OPCODE_MAP_0F3A) out.byte(0x3A);
  out.byte(d.insn.opcode);
}

void put_vex(const Decoded& d, const Fields& f, bool wide, Code& out) {
  const auto& v = d.insn.raw.vex;
  out.put(0xC4, (f.reg & 8 ? 0 : 0x80) | 0x40 | (f.rm & 8 ? 0 : 0x20) | v.m_mmmm,
          (wide ? 0x80 : 0) | (~f.vvvv & 15) << 3 | v.L << 2 | v.pp, d.insn.opcode);
}

void put_evex(const Decoded& d, const Fields& f, bool wide, Code& out) {
  const auto& e = d.insn.raw.evex;
  out.put(0x62,
          (f.reg & 8 ? 0 : 0x80) | (f.rm & 16 ? 0 : 0x40) | (f.rm & 8 ? 0 : 0x20) | (f.reg & 16 ? 0 : 0x10) | e.mmm,
          (wide ? 0x80 : 0) | (~f.vvvv & 15) << 3 | 4 | e.pp,
          e.z << 7 | e.L2 << 6 | e.L << 5 | e.b << 4 | (f.vvvv & 16 ? 0 : 8) | e.aaa, d.insn.opcode);
}

// Bytes after ModRM, SIB and displacement.
void put_immediates(const Decoded& d, const u8* source, Code& out) {
  const auto& raw = d.insn.raw;
  unsigned at = raw.modrm.offset + 1u;
  if (d.insn.attributes & ZYDIS_ATTRIB_HAS_SIB) at++;
  at += raw.disp.size / 8;
  for (; at < d.insn.length; at++) out.byte(source[at] & immediate_mask(d));
}

bool w_bit(const Decoded& d) {
  switch (d.insn.encoding) {
    case ZYDIS_INSTRUCTION_ENCODING_VEX:
      return d.insn.raw.vex.W;
    case ZYDIS_INSTRUCTION_ENCODING_EVEX:
      return d.insn.raw.evex.W;
    default:
      return d.insn.attributes & ZYDIS_ATTRIB_HAS_REX && d.insn.raw.rex.W;
  }
}

void put_all(const Decoded& d, const u8* source, bool wide, Code& out) {
  const Fields f = fields_of(d);
  if (d.insn.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX)
    put_vex(d, f, wide, out);
  else if (d.insn.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX)
    put_evex(d, f, wide, out);
  else
    put_legacy(d, f, wide, out);
  put_modrm(f, out);
  put_immediates(d, source, out);
}

bool same_operand(const ZydisDecodedOperand& a, const ZydisDecodedOperand& b) {
  if (a.type != b.type || a.size != b.size || a.encoding != b.encoding || a.actions != b.actions) return false;
  if (a.type == ZYDIS_OPERAND_TYPE_MEMORY)
    return a.visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN || (b.mem.base == ZYDIS_REGISTER_RSI && !b.mem.disp.value);
  if (a.type != ZYDIS_OPERAND_TYPE_REGISTER) return true;
  if (is_gpr(a)) return is_gpr(b);
  if (ZydisRegisterGetClass(a.reg.value) == ZYDIS_REGCLASS_FLAGS) return true;  // FLAGS, EFLAGS, RFLAGS
  return a.reg.value == b.reg.value;
}

// The rebuilt bytes must decode to the same operation.
bool same_instruction(const Decoded& d, const u8* bytes, std::size_t size) {
  Decoded n;
  if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder_for(8), bytes, size, &n.insn, n.op))) return false;
  if (n.insn.length != size || n.insn.mnemonic != d.insn.mnemonic || n.insn.operand_count != d.insn.operand_count)
    return false;
  for (u8 i = 0; i < d.insn.operand_count; i++) {
    // FLAGS and EFLAGS differ in size between modes.
    if (d.op[i].type == ZYDIS_OPERAND_TYPE_REGISTER && ZydisRegisterGetClass(d.op[i].reg.value) == ZYDIS_REGCLASS_FLAGS)
      continue;
    if (!same_operand(d.op[i], n.op[i])) return false;
  }
  return true;
}

}  // namespace

bool is_gpr(const ZydisDecodedOperand& op) {
  if (op.type != ZYDIS_OPERAND_TYPE_REGISTER) return false;
  switch (ZydisRegisterGetClass(op.reg.value)) {
    case ZYDIS_REGCLASS_GPR8:
    case ZYDIS_REGCLASS_GPR16:
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR64:
      return true;
    default:
      return false;
  }
}

bool is_high8(ZydisRegister r) { return r >= ZYDIS_REGISTER_AH && r <= ZYDIS_REGISTER_BH; }

u8 gpr_number(ZydisRegister r) {
  if (is_high8(r)) return static_cast<u8>(r - ZYDIS_REGISTER_AH);
  if (r >= ZYDIS_REGISTER_AL && r <= ZYDIS_REGISTER_BL) return static_cast<u8>(r - ZYDIS_REGISTER_AL);
  if (r >= ZYDIS_REGISTER_SPL && r <= ZYDIS_REGISTER_R15B) return static_cast<u8>(r - ZYDIS_REGISTER_SPL + 4);
  return static_cast<u8>(ZydisRegisterGetId(r));
}

const ZydisDecoder& decoder_for(u8 code_bytes) {
  struct All {
    ZydisDecoder d[3];
    All() {
      ZydisDecoderInit(&d[0], ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16);
      ZydisDecoderInit(&d[1], ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
      ZydisDecoderInit(&d[2], ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
      for (ZydisDecoder& z : d)
        for (ZydisDecoderMode off : {ZYDIS_DECODER_MODE_MPX, ZYDIS_DECODER_MODE_CET, ZYDIS_DECODER_MODE_KNC})
          ZydisDecoderEnableMode(&z, off, ZYAN_FALSE);
    }
  };
  static const All all;
  return all.d[code_bytes == 8 ? 2 : code_bytes == 4 ? 1 : 0];
}

u8 immediate_mask(const Decoded& d) {
  if (d.insn.machine_mode == ZYDIS_MACHINE_MODE_LONG_64) return 0xff;
  for (u8 i = 0; i < d.insn.operand_count; i++)
    if (d.op[i].encoding == ZYDIS_OPERAND_ENCODING_IS4) return 0x7f;
  return 0xff;
}

std::optional<bool> w_in_64_bit_mode(const Decoded& d, const u8* source) {
  if (d.insn.machine_mode == ZYDIS_MACHINE_MODE_LONG_64) return w_bit(d);
  for (const bool wide : {w_bit(d), false}) {
    Code attempt;
    put_all(d, source, wide, attempt);
    if (!attempt.overflowed() && same_instruction(d, attempt.data(), attempt.size())) return wide;
  }
  return std::nullopt;
}

bool rebuild(const Decoded& d, const u8* source, Code& out) {
  // Outside 64-bit mode W is ignored where it would select a 64-bit general register, and an opcode bit elsewhere: the
  // second try.
  for (const bool wide : {w_bit(d), false}) {
    Code attempt;
    put_all(d, source, wide, attempt);
    if (!attempt.overflowed() && same_instruction(d, attempt.data(), attempt.size())) {
      for (std::size_t i = 0; i < attempt.size(); i++) out.byte(attempt.data()[i]);
      return true;
    }
  }
  return false;
}

}  // namespace trapline::engine::vector
