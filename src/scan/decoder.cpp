#include "scan/decoder.h"

#include <array>

namespace trapline::scan {

namespace {

// Mnemonics that have a row in some form.
const std::array<bool, ZYDIS_MNEMONIC_MAX_VALUE + 1>& with_rows() {
  static const auto known = [] {
    std::array<bool, ZYDIS_MNEMONIC_MAX_VALUE + 1> found{};
    for (const isa::Row& r : isa::table())
      for (ZydisMnemonic m : r.mnemonics) found[m] = m != ZYDIS_MNEMONIC_INVALID;
    return found;
  }();
  return known;
}

// Of the most frequent mnemonics only a few opcodes have rows (SDM Vol. 2D, opcode map).
bool maybe_sensitive(const ZydisDecodedInstruction& i) {
  if (!with_rows()[i.mnemonic]) return false;
  const bool one = i.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT;
  switch (i.mnemonic) {
    case ZYDIS_MNEMONIC_MOV:
      return one ? i.opcode == 0x8c || i.opcode == 0x8e : true;
    case ZYDIS_MNEMONIC_PUSH:
    case ZYDIS_MNEMONIC_POP:
      return !one || i.opcode < 0x40;
    case ZYDIS_MNEMONIC_CALL:
      return i.opcode == 0x9a || (i.opcode == 0xff && i.raw.modrm.reg == 3);
    case ZYDIS_MNEMONIC_JMP:
      return i.opcode == 0xea || (i.opcode == 0xff && i.raw.modrm.reg == 5);
    case ZYDIS_MNEMONIC_RET:
      return (i.opcode & 0xfe) == 0xca;
    default:
      return true;
  }
}

bool is_relative(const ZydisDecodedInstruction& i) { return i.raw.imm[0].is_relative; }

Flow flow_of(const ZydisDecodedInstruction& i) {
  switch (i.mnemonic) {
    case ZYDIS_MNEMONIC_CALL:
      return is_relative(i) ? Flow::call : Flow::next;
    case ZYDIS_MNEMONIC_JMP:
      if (is_relative(i)) return Flow::jump;
      return i.opcode == 0xff && i.raw.modrm.reg == 4 ? Flow::indirect : Flow::stop;
    case ZYDIS_MNEMONIC_RET:
    case ZYDIS_MNEMONIC_IRET:
    case ZYDIS_MNEMONIC_IRETD:
    case ZYDIS_MNEMONIC_IRETQ:
    case ZYDIS_MNEMONIC_SYSRET:
    case ZYDIS_MNEMONIC_SYSEXIT:
    case ZYDIS_MNEMONIC_RSM:
    case ZYDIS_MNEMONIC_UIRET:
    case ZYDIS_MNEMONIC_INT3:
    case ZYDIS_MNEMONIC_UD0:
    case ZYDIS_MNEMONIC_UD1:
    case ZYDIS_MNEMONIC_UD2:
      return Flow::stop;
    default:
      return is_relative(i) ? Flow::branch : Flow::next;  // Jcc, LOOP, JCXZ, XBEGIN
  }
}

void note_address(const ZydisDecodedInstruction& i, Shallow& out) {
  if (i.mnemonic == ZYDIS_MNEMONIC_LEA && i.raw.modrm.mod == 0 && i.raw.modrm.rm == 5 &&
      i.machine_mode == ZYDIS_MACHINE_MODE_LONG_64) {
    out.lea = true;
    out.distance = i.raw.disp.value;
  }
  const bool immediate = i.raw.imm[0].size == 32 && !is_relative(i);
  if ((i.mnemonic == ZYDIS_MNEMONIC_MOV || i.mnemonic == ZYDIS_MNEMONIC_PUSH) && immediate) {
    out.immediate = true;
    out.distance = static_cast<i32>(i.raw.imm[0].value.u);
  }
}

}  // namespace

Decoder::Decoder(isa::CodeSize size, isa::Vendor vendor) : reader_{size, vendor, true} {}

bool Decoder::shallow(Bytes bytes, Shallow& out) const {
  ZydisDecodedInstruction i;
  if (!ZYAN_SUCCESS(reader_.read(bytes.data(), bytes.size(), nullptr, i))) {
    const unsigned length = reader_.reserved_length(bytes.data(), bytes.size());
    if (!length) return false;
    out = Shallow{};
    out.length = static_cast<u8>(length);
    out.reserved = true;
    return true;
  }
  out = Shallow{};
  out.length = i.length;
  out.flow = flow_of(i);
  out.padding = i.mnemonic == ZYDIS_MNEMONIC_NOP || i.mnemonic == ZYDIS_MNEMONIC_INT3;
  out.invalid_opcode =
      i.mnemonic == ZYDIS_MNEMONIC_UD2 || i.mnemonic == ZYDIS_MNEMONIC_UD1 || i.mnemonic == ZYDIS_MNEMONIC_UD0;
  out.maybe_sensitive = maybe_sensitive(i);
  if (reader_.vendor() == isa::Vendor::intel) out.differs = isa::vendor_difference(i);
  if (out.differs) out.padding = false;
  if (out.flow == Flow::call || out.flow == Flow::jump || out.flow == Flow::branch)
    out.distance = i.raw.imm[0].value.s, out.narrow = isa::narrow_branch(i, reader_.vendor());
  else
    note_address(i, out);
  return true;
}

const isa::Row* Decoder::classify(Bytes bytes) const {
  isa::Insn insn;
  if (isa::decode(bytes.data(), bytes.size(), code_size(), vendor(), insn) != isa::DecodeStatus::ok) return nullptr;
  return isa::classify(insn);
}

}  // namespace trapline::scan
