#include "engine/hostcode/string_form.h"

#include <bit>

namespace trapline::engine::hostcode {

namespace {

bool operation(ZydisMnemonic m, StringOp* op) {
  switch (m) {
    case ZYDIS_MNEMONIC_MOVSB:
    case ZYDIS_MNEMONIC_MOVSW:
    case ZYDIS_MNEMONIC_MOVSD:
    case ZYDIS_MNEMONIC_MOVSQ:
      *op = StringOp::movs;
      return true;
    case ZYDIS_MNEMONIC_STOSB:
    case ZYDIS_MNEMONIC_STOSW:
    case ZYDIS_MNEMONIC_STOSD:
    case ZYDIS_MNEMONIC_STOSQ:
      *op = StringOp::stos;
      return true;
    case ZYDIS_MNEMONIC_LODSB:
    case ZYDIS_MNEMONIC_LODSW:
    case ZYDIS_MNEMONIC_LODSD:
    case ZYDIS_MNEMONIC_LODSQ:
      *op = StringOp::lods;
      return true;
    case ZYDIS_MNEMONIC_CMPSB:
    case ZYDIS_MNEMONIC_CMPSW:
    case ZYDIS_MNEMONIC_CMPSD:
    case ZYDIS_MNEMONIC_CMPSQ:
      *op = StringOp::cmps;
      return true;
    case ZYDIS_MNEMONIC_SCASB:
    case ZYDIS_MNEMONIC_SCASW:
    case ZYDIS_MNEMONIC_SCASD:
    case ZYDIS_MNEMONIC_SCASQ:
      *op = StringOp::scas;
      return true;
    default:
      return false;
  }
}

}  // namespace

bool string_form(const isa::Insn& i, bool bits64, StringForm* form) {
  // MOVSD and CMPSD are also names of SSE2 instructions: those have operands.
  if (i.operand_count != 0 || !operation(i.mnemonic, &form->op)) return false;
  form->size_log2 = static_cast<u8>(std::countr_zero(unsigned{i.mem.bytes}));
  form->repeats = i.rep || i.repne;
  form->while_equal = i.rep;
  if (i.address_bytes != (bits64 ? 8 : 4)) return false;
  return !form->reads_source() || (i.mem.seg != isa::Seg::fs && i.mem.seg != isa::Seg::gs && i.mem.seg != isa::Seg::cs);
}

}  // namespace trapline::engine::hostcode
