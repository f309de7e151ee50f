#include "fuzz/lenient.h"

#include <algorithm>

namespace trapline::fuzz {

namespace {

bool has_memory(const Decoded& d) {
  for (unsigned i = 0; i < d.insn.operand_count; i++)
    if (d.operands[i].type == ZYDIS_OPERAND_TYPE_MEMORY) return true;
  return false;
}

bool names_mmx(const Decoded& d) {
  for (unsigned i = 0; i < d.insn.operand_count; i++)
    if (d.operands[i].type == ZYDIS_OPERAND_TYPE_REGISTER &&
        ZydisRegisterGetClass(d.operands[i].reg.value) == ZYDIS_REGCLASS_MMX)
      return true;
  return false;
}

Lenient lenient_for(const Decoded& d) {
  Lenient l;
  switch (d.insn.mnemonic) {
    // The flags are set when the value is computed, and the store faults after that.
    case ZYDIS_MNEMONIC_VCVTPS2PH:
      l.mxcsr_flags = true;
      break;
    // Microcode moves these images piece by piece, in an order of its own.
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FNSTENV:
      l.page_address = l.memory = true;
      break;
    case ZYDIS_MNEMONIC_FRSTOR:
    case ZYDIS_MNEMONIC_FLDENV:
      l.page_address = l.x87 = true;
      break;
    // Which misalignments are #AC and which #GP "may vary with implementation" (SDM Vol. 2A FXSAVE).
    case ZYDIS_MNEMONIC_XSAVE:
    case ZYDIS_MNEMONIC_XSAVE64:
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64:
      l.page_address = l.memory = l.alignment_vector = true;
      break;
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_XRSTOR64:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
      l.page_address = l.x87 = l.alignment_vector = true;
      break;
    // Ten bytes are stored as eight and two, or one by one.
    case ZYDIS_MNEMONIC_FBSTP:
      l.memory = true;
      break;
    case ZYDIS_MNEMONIC_FSTP:
      if (d.operands[0].size == 80) l.memory = true;
      break;
    // Intel pushes the return address before it looks whether the target is canonical, and RSP is put back; AMD looks
    // first. Translated code pushes on both.
    case ZYDIS_MNEMONIC_CALL:
      l.below_stack = true;
      break;
    // Which byte or element of a masked store is reported differs.
    case ZYDIS_MNEMONIC_VMASKMOVPS:
    case ZYDIS_MNEMONIC_VMASKMOVPD:
    case ZYDIS_MNEMONIC_VPMASKMOVD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ:
    case ZYDIS_MNEMONIC_MASKMOVQ:
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVDQU:
      l.page_address = true;
      break;
    default:
      break;
  }
  if (d.insn.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX && d.insn.avx.mask.reg != ZYDIS_REGISTER_K0)
    l.page_address = true;
  // The switch to MMX mode (TOP, tags) may have happened although the memory operand faults.
  if (names_mmx(d) && has_memory(d)) l.x87 = true;
  return l;
}

}  // namespace

// Did a trap come between an FXSAVE or XSAVE and what is to overwrite the host's own in its image?
static bool inside_group(const Program& program, u64 offset) {
  u64 at = 0;
  for (std::size_t i = 0; i < program.items.size(); at += program.items[i++].length)
    if (at == offset) return i > 0 && program.items[i].group && program.items[i].group == program.items[i - 1].group;
  return false;
}

Lenient lenient_at(const Program& program, std::size_t slot, const Outcome& native) {
  if (native.ending.kind != Ending::Kind::event || native.ending.vector == 3) return {};
  const u64 base = code_at(slot);
  const auto code = layout(program.items, base);
  const u64 offset = stopped_at(program, slot, native) - base;
  if (offset >= code.size()) return {};
  Decoded d;
  u8 bytes[32] = {};
  std::copy(code.begin() + static_cast<std::ptrdiff_t>(offset),
            code.begin() + static_cast<std::ptrdiff_t>(std::min<u64>(code.size(), offset + 15)), bytes);
  Lenient lenient = decode(bytes, 15, d, program.size) ? lenient_for(d) : Lenient{};
  lenient.memory |= inside_group(program, offset);
  return lenient;
}

}  // namespace trapline::fuzz
