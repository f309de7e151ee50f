// ADD to CMP, TEST, INC, DEC, NEG, NOT.
#include "engine/interpret/shapes.h"

namespace trapline::engine::interpret {

Handler choose_alu(const Insn& insn, const Form& form) {
  switch (insn.mnemonic) {
    case ZYDIS_MNEMONIC_ADD:
      return choose<Add>(form);
    case ZYDIS_MNEMONIC_OR:
      return choose<Or>(form);
    case ZYDIS_MNEMONIC_ADC:
      return choose<Adc>(form);
    case ZYDIS_MNEMONIC_SBB:
      return choose<Sbb>(form);
    case ZYDIS_MNEMONIC_AND:
      return choose<And>(form);
    case ZYDIS_MNEMONIC_SUB:
      return choose<Sub>(form);
    case ZYDIS_MNEMONIC_XOR:
      return choose<Xor>(form);
    case ZYDIS_MNEMONIC_CMP:
      return choose<Cmp>(form);
    case ZYDIS_MNEMONIC_TEST:
      return choose<Test>(form);
    case ZYDIS_MNEMONIC_INC:
      return choose<Inc>(form);
    case ZYDIS_MNEMONIC_DEC:
      return choose<Dec>(form);
    case ZYDIS_MNEMONIC_NEG:
      return choose<Neg>(form);
    case ZYDIS_MNEMONIC_NOT:
      return choose<Not>(form);
    default:
      return nullptr;
  }
}

}  // namespace trapline::engine::interpret
