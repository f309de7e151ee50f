#include "engine/emit/rebuild.h"

#include "engine/emit/reencode.h"

namespace trapline::engine::emit {

namespace {

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

// Outside 64-bit mode Zydis 4.0 and 4.1 give VPCMPESTRI and VPCMPESTRM with W=1 a RAX and an RDX of no size at all:
// EAX and EDX are meant.
unsigned size_of(const ZydisDecodedOperand& op) { return op.size == 0 && is_gpr(op) ? 32 : op.size; }

bool same_operand(const ZydisDecodedOperand& a, const ZydisDecodedOperand& b) {
  if (a.type != b.type || size_of(a) != size_of(b) || a.encoding != b.encoding || a.actions != b.actions) return false;
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

// The unit's form: memory at [rsi], general registers by field.
Fields unit_fields(const Decoded& d) {
  Fields f = guest_fields(d);
  for (u8 i = 0; i < d.insn.operand_count; i++) {
    if (!is_gpr(d.op[i])) continue;
    if (d.op[i].encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG) f.reg = kRegField;
    if (d.op[i].encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM) f.rm = kRmField;
  }
  if (f.memory) f.mem = at(rsi);
  return f;
}

// Outside 64-bit mode W is ignored where it would select a 64-bit general register, and an opcode bit elsewhere: the
// second try. Appends the one whose result means the same, and says its W.
std::optional<bool> try_both(const Decoded& d, const u8* source, Emitter& out) {
  const Fields fields = unit_fields(d);
  const u32 start = out.size();
  for (const bool w : {w_bit(d), false}) {
    reencode_with(d, source, fields, w, out);
    if (!out.overflowed() && same_instruction(d, out.data() + start, out.size() - start)) return w;
    out.rewind(start);
  }
  return std::nullopt;
}

// Large, and used for a moment.
Emitter& workbench() {
  static thread_local Emitter emitter;
  emitter.begin(0);
  return emitter;
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
  return try_both(d, source, workbench());
}

bool rebuild(const Decoded& d, const u8* source, Emitter& out) { return try_both(d, source, out).has_value(); }

}  // namespace trapline::engine::emit
