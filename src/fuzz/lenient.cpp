#include "fuzz/lenient.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "fuzz/native.h"

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
    // Microcode that goes many bytes at a time leaves the flags of before the instruction in two of 512 places where it
    // may fault, which depend on the count (family 26; words and more, and families before, as ever).
    case ZYDIS_MNEMONIC_CMPSB:
    case ZYDIS_MNEMONIC_SCASB:
      l.arithmetic_flags = d.insn.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE);
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

namespace {

// The instruction of the program at the linear address `at`.
bool decode_at(const Program& program, std::size_t slot, u64 at, Decoded& d) {
  const auto code = layout(program.items, code_at(slot));
  const u64 offset = at - code_at(slot);
  if (offset >= code.size()) return false;
  u8 bytes[32] = {};
  std::copy(code.begin() + static_cast<std::ptrdiff_t>(offset),
            code.begin() + static_cast<std::ptrdiff_t>(std::min<u64>(code.size(), offset + 15)), bytes);
  return decode(bytes, 15, d, program.size);
}

bool loads_mxcsr(ZydisMnemonic m) {
  return m == ZYDIS_MNEMONIC_FXRSTOR || m == ZYDIS_MNEMONIC_FXRSTOR64 || m == ZYDIS_MNEMONIC_XRSTOR ||
         m == ZYDIS_MNEMONIC_XRSTOR64 || m == ZYDIS_MNEMONIC_LDMXCSR || m == ZYDIS_MNEMONIC_VLDMXCSR;
}

// Where its memory operand lies, with the registers at its start.
std::optional<u64> operand_address(const Decoded& d, const Registers& r, u64 at) {
  ZydisRegisterContext context{};
  for (unsigned i = 0; i < 16; i++) {
    context.values[ZydisRegisterEncode(ZYDIS_REGCLASS_GPR64, static_cast<u8>(i))] = r.gpr[i];
    context.values[ZydisRegisterEncode(ZYDIS_REGCLASS_GPR32, static_cast<u8>(i))] = r.gpr[i] & 0xffffffff;
    context.values[ZydisRegisterEncode(ZYDIS_REGCLASS_GPR16, static_cast<u8>(i))] = r.gpr[i] & 0xffff;
  }
  for (unsigned i = 0; i < d.insn.operand_count; i++) {
    const ZydisDecodedOperand& op = d.operands[i];
    if (op.type != ZYDIS_OPERAND_TYPE_MEMORY) continue;
    ZyanU64 address;
    if (!ZYAN_SUCCESS(ZydisCalcAbsoluteAddressEx(&d.insn, &op, at, &context, &address))) return std::nullopt;
    return address + (op.mem.segment == ZYDIS_REGISTER_GS ? place::gs_base : 0);
  }
  return std::nullopt;
}

// Of what the sequence can read.
std::optional<u32> read_32(const Memory& memory, u64 at) {
  const auto within = [&](u64 base, u64 size, const u8* bytes) -> const u8* {
    return at - base <= size - 4 ? bytes + (at - base) : nullptr;
  };
  const u8* from = within(place::data, place::data_size, memory.data);
  if (!from) from = within(place::stack, place::stack_size, memory.stack);
  if (!from) from = within(place::read_only, place::read_only_size, Native::read_only_page());
  if (!from) return std::nullopt;
  u32 value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

}  // namespace

bool loads_hidden_mxcsr(const Program& program, std::size_t slot, const Outcome& engine, const Extent& extent) {
  if (engine.ending.kind != Ending::Kind::event || engine.ending.vector != 13 || engine.ending.error != 0) return false;
  Decoded d;
  const u64 at = stopped_at(program, slot, engine);
  if (!decode_at(program, slot, at, d) || !loads_mxcsr(d.insn.mnemonic)) return false;
  const bool alone = d.insn.mnemonic == ZYDIS_MNEMONIC_LDMXCSR || d.insn.mnemonic == ZYDIS_MNEMONIC_VLDMXCSR;
  constexpr u64 kMxcsrInImage = 24;
  const auto place = operand_address(d, engine.state.regs, at);
  const auto mxcsr = place ? read_32(engine.state.memory, *place + (alone ? 0 : kMxcsrInImage)) : std::nullopt;
  return mxcsr && !(*mxcsr & ~extent.mxcsr_mask) && (*mxcsr & ~0xffffu);
}

Lenient lenient_at(const Program& program, std::size_t slot, const Outcome& native) {
  if (native.ending.kind != Ending::Kind::event || native.ending.vector == 3) return {};
  const u64 at = stopped_at(program, slot, native), offset = at - code_at(slot);
  Decoded d;
  Lenient lenient = decode_at(program, slot, at, d) ? lenient_for(d) : Lenient{};
  lenient.memory |= inside_group(program, offset);
  return lenient;
}

}  // namespace trapline::fuzz
