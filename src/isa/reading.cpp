#include "isa/reading.h"

#include <algorithm>

namespace trapline::isa {

namespace {

bool has_prefix(const ZydisDecodedInstruction& i, u8 value) {
  for (unsigned n = 0; n < i.raw.prefix_count; n++)
    if (i.raw.prefixes[n].value == value) return true;
  return false;
}

// F2 or F3, whichever comes last; 0: neither.
u8 last_repeat(const ZydisDecodedInstruction& i) {
  for (unsigned n = i.raw.prefix_count; n-- > 0;)
    if (i.raw.prefixes[n].value == 0xf2 || i.raw.prefixes[n].value == 0xf3) return i.raw.prefixes[n].value;
  return 0;
}

bool near_branch(const ZydisDecodedInstruction& i) {
  if (i.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY) return false;
  if (i.opcode_map == ZYDIS_OPCODE_MAP_0F) return (i.opcode & 0xf0) == 0x80;
  if (i.opcode_map != ZYDIS_OPCODE_MAP_DEFAULT) return false;
  switch (i.opcode) {
    case 0xc2:  // RET
    case 0xc3:
    case 0xe0:  // LOOPNE, LOOPE, LOOP, JCXZ
    case 0xe1:
    case 0xe2:
    case 0xe3:
    case 0xe8:  // CALL, JMP
    case 0xe9:
    case 0xeb:
      return true;
    case 0xff:
      return i.raw.modrm.reg == 2 || i.raw.modrm.reg == 4;
    default:
      return (i.opcode & 0xf0) == 0x70;
  }
}

// 0F 0D with a register: a NOP on Intel's CPUs, #UD on AMD's (APM vol. 3 PREFETCHlevel).
bool register_prefetch(const ZydisDecodedInstruction& i) {
  return i.opcode_map == ZYDIS_OPCODE_MAP_0F && i.opcode == 0x0d && i.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY &&
         i.raw.modrm.mod == 3;
}

bool far_in_memory(const ZydisDecodedInstruction& i) {
  return i.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && i.opcode == 0xff && (i.raw.modrm.reg == 3 || i.raw.modrm.reg == 5);
}
bool loads_far_pointer(const ZydisDecodedInstruction& i) {
  return i.opcode_map == ZYDIS_OPCODE_MAP_0F && (i.opcode == 0xb2 || i.opcode == 0xb4 || i.opcode == 0xb5);
}

bool without_modrm(ZydisMnemonic m) { return m == ZYDIS_MNEMONIC_UD0 || m == ZYDIS_MNEMONIC_UD1; }

}  // namespace

bool narrow_branch(const ZydisDecodedInstruction& i, Vendor vendor) {
  if (i.machine_mode == ZYDIS_MACHINE_MODE_LEGACY_16 || !has_prefix(i, 0x66) || !near_branch(i)) return false;
  return i.machine_mode != ZYDIS_MACHINE_MODE_LONG_64 || (vendor == Vendor::amd && !i.raw.rex.W);
}

const char* vendor_difference(const ZydisDecodedInstruction& i) {
  if (i.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY) return nullptr;
  const bool is64 = i.machine_mode == ZYDIS_MACHINE_MODE_LONG_64, wide = i.raw.rex.W;
  if (register_prefetch(i)) return "0F 0D with a register: a NOP for Intel, undefined for AMD";
  if (is64 && wide && (far_in_memory(i) || loads_far_pointer(i)))
    return "REX.W on a far pointer: 64 bits of offset for Intel, 32 for AMD";
  if (!i.raw.prefix_count) return nullptr;
  if (is64 && !wide && near_branch(i) && has_prefix(i, 0x66))
    return "66 on a near branch: ignored by Intel, for AMD a 16-bit operand and target";
  if (i.mnemonic == ZYDIS_MNEMONIC_LOOPE && last_repeat(i) == 0xf2)
    return "F2 on LOOPE: ignored by Intel, LOOPNE for AMD";
  if (i.mnemonic == ZYDIS_MNEMONIC_LOOPNE && last_repeat(i) == 0xf3)
    return "F3 on LOOPNE: ignored by Intel, LOOPE for AMD";
  if (i.mnemonic == ZYDIS_MNEMONIC_PAUSE && i.raw.rex.B) return "F3 REX.B 90: PAUSE for Intel, XCHG for AMD";
  if (i.mnemonic == ZYDIS_MNEMONIC_MOVSXD && !wide && has_prefix(i, 0x66) && i.raw.modrm.mod != 3)
    return "MOVSXD of 16 bits: reads 2 bytes for Intel, 4 for AMD";
  return nullptr;
}

Reader::Reader(CodeSize size, Vendor vendor, bool minimal) : size_{size}, vendor_{vendor}, minimal_{minimal} {
  const bool is64 = size == CodeSize::bits64, is32 = size == CodeSize::bits32;
  ZydisDecoderInit(&decoder_,
                   is64   ? ZYDIS_MACHINE_MODE_LONG_64
                   : is32 ? ZYDIS_MACHINE_MODE_LEGACY_32
                          : ZYDIS_MACHINE_MODE_LEGACY_16,
                   is64   ? ZYDIS_STACK_WIDTH_64
                   : is32 ? ZYDIS_STACK_WIDTH_32
                          : ZYDIS_STACK_WIDTH_16);
  if (minimal) ZydisDecoderEnableMode(&decoder_, ZYDIS_DECODER_MODE_MINIMAL, ZYAN_TRUE);
  // Off: encodings of features that are never offered must not shadow the NOPs they were made from.
  for (ZydisDecoderMode mode : {ZYDIS_DECODER_MODE_MPX, ZYDIS_DECODER_MODE_CET, ZYDIS_DECODER_MODE_KNC})
    ZydisDecoderEnableMode(&decoder_, mode, ZYAN_FALSE);
  if (is64 && vendor == Vendor::amd) ZydisDecoderEnableMode(&decoder_, ZYDIS_DECODER_MODE_AMD_BRANCHES, ZYAN_TRUE);
}

// The same instruction with each prefix `from` read as `to`.
ZyanStatus Reader::again(const u8* bytes, const ZydisDecodedInstruction& first, u8 from, u8 to,
                         ZydisDecoderContext* context, ZydisDecodedInstruction& out) const {
  std::array<u8, 15> copy;
  const std::size_t length = first.length;
  std::copy_n(bytes, length, copy.begin());
  std::replace(copy.begin(), copy.begin() + first.raw.prefix_count, from, to);
  return ZydisDecoderDecodeInstruction(&decoder_, context, copy.data(), length, &out);
}

// Both makers reserve REP here (SDM vol. 2A 2.1.1, APM vol. 3 1.2.6). Intel's CPUs ignore it; on AMD's F3 makes either
// opcode LOOPE and F2 makes it LOOPNE, the last prefix wins.
ZyanStatus Reader::loop_by_prefix(const u8* bytes, ZydisDecoderContext* context, ZydisDecodedInstruction& out) const {
  const u8 repeat = last_repeat(out);
  const u8 opcode = repeat == 0xf3 ? 0xe1 : 0xe0;
  if (!repeat || out.opcode == opcode) return ZYAN_STATUS_SUCCESS;
  std::array<u8, 15> copy;
  const std::size_t length = out.length;
  std::copy_n(bytes, length, copy.begin());
  copy[length - 2] = opcode;
  return ZydisDecoderDecodeInstruction(&decoder_, context, copy.data(), length, &out);
}

// UD0 and UD1 have no ModRM byte on AMD's CPUs: at the end of what can be read they are whole.
ZyanStatus Reader::beyond_the_end(const u8* bytes, std::size_t available, ZydisDecoderContext* context,
                                  ZydisDecodedInstruction& out) const {
  std::array<u8, 15> padded{};
  std::copy_n(bytes, available, padded.begin());
  const ZyanStatus status = ZydisDecoderDecodeInstruction(&decoder_, context, padded.data(), padded.size(), &out);
  const bool whole = ZYAN_SUCCESS(status) && without_modrm(out.mnemonic) && out.raw.modrm.offset <= available;
  if (!whole) return ZYDIS_STATUS_NO_MORE_DATA;
  out.length = out.raw.modrm.offset;
  return status;
}

ZyanStatus Reader::read(const u8* bytes, std::size_t available, ZydisDecoderContext* context,
                        ZydisDecodedInstruction& out) const {
  available = std::min<std::size_t>(available, 15);
  const ZyanStatus status = ZydisDecoderDecodeInstruction(&decoder_, context, bytes, available, &out);
  const bool amd = vendor_ == Vendor::amd;
  if (!ZYAN_SUCCESS(status)) {
    if (status == ZYDIS_STATUS_NO_MORE_DATA && amd && available < 15 && available)
      return beyond_the_end(bytes, available, context, out);
    return status;
  }
  switch (out.mnemonic) {
    // With REX.B AMD's processors execute XCHG r8, rAX and ignore the prefix, as in front of any other XCHG; to Intel's it
    // stays PAUSE (both measured). A DS override says nothing, either.
    case ZYDIS_MNEMONIC_PAUSE:
      return amd && out.raw.rex.B ? again(bytes, out, 0xf3, 0x3e, context, out) : status;
    case ZYDIS_MNEMONIC_LOOPE:
    case ZYDIS_MNEMONIC_LOOPNE:
      return amd ? loop_by_prefix(bytes, context, out) : status;
    case ZYDIS_MNEMONIC_UD0:
    case ZYDIS_MNEMONIC_UD1:
      if (amd && !minimal_) out.length = out.raw.modrm.offset;
      return status;
    default:
      return amd && register_prefetch(out) ? ZYDIS_STATUS_DECODING_ERROR : status;
  }
}

ZyanStatus Reader::operands(const ZydisDecoderContext& context, ZydisDecodedInstruction& insn,
                            ZydisDecodedOperand* out) const {
  if (vendor_ == Vendor::amd && without_modrm(insn.mnemonic)) insn.operand_count = insn.operand_count_visible = 0;
  const ZyanStatus status = ZydisDecoderDecodeOperands(&decoder_, &context, &insn, out, insn.operand_count);
  if (!ZYAN_SUCCESS(status) || insn.machine_mode != ZYDIS_MACHINE_MODE_LONG_64 || !narrow_branch(insn, vendor_))
    return status;
  insn.operand_width = 16;
  if (out[0].type == ZYDIS_OPERAND_TYPE_MEMORY) out[0].size = 16;
  if (out[0].type == ZYDIS_OPERAND_TYPE_REGISTER && ZydisRegisterGetClass(out[0].reg.value) == ZYDIS_REGCLASS_GPR64) {
    out[0].size = 16;
    out[0].reg.value =
        ZydisRegisterEncode(ZYDIS_REGCLASS_GPR16, static_cast<ZyanU8>(ZydisRegisterGetId(out[0].reg.value)));
  }
  return status;
}

bool Reader::reads(const std::array<u8, 15>& bytes, std::size_t available, unsigned& length) const {
  ZydisDecodedInstruction insn;
  if (!ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&decoder_, nullptr, bytes.data(), available, &insn))) return false;
  length = insn.length;
  return true;
}

// What the bits change is not the length, so all that may be in the way are cleared at once.
unsigned Reader::reserved_length(const u8* bytes, std::size_t available) const {
  available = std::min<std::size_t>(available, 15);
  if (available < 4) return 0;
  std::array<u8, 15> copy{};
  std::copy_n(bytes, available, copy.begin());
  unsigned length = 0;
  std::size_t at = 0;  // behind the legacy prefixes that VEX and EVEX take
  while (at + 4 < available && (copy[at] == 0x2e || copy[at] == 0x36 || copy[at] == 0x3e || copy[at] == 0x26 ||
                                copy[at] == 0x64 || copy[at] == 0x65 || copy[at] == 0x67))
    at++;
  u8* const p = copy.data() + at;
  if (p[0] == 0x62) {
    p[3] &= 0x6f;  // z, b
    if (reads(copy, available, length)) return length;
    p[1] |= 0xb0, p[2] |= 0x40;  // R, R', B and the top of vvvv: opmask registers have three bits
    return reads(copy, available, length) ? length : 0;
  }
  if (p[0] == 0xc4) {
    const bool permute = (p[1] & 0x1f) == 3 && (p[2] & 0x87) == 5 && p[3] <= 1;  // VPERMQ, VPERMPD with W = 0
    if (permute)
      p[2] |= 0x80;
    else
      p[1] |= 0xa0, p[2] |= 0x40;
    return reads(copy, available, length) ? length : 0;
  }
  const bool locked = p[0] == 0xf0 && p[1] == 0x0f &&
                      (p[2] == 0x20 || p[2] == 0x22 || (p[2] == 0 && (p[3] & 0x38) == 0x28 && p[3] < 0xc0));
  if (!locked) return 0;
  p[0] = 0x3e;
  return reads(copy, available, length) ? length : 0;
}

}  // namespace trapline::isa
