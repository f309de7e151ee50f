// Shifts and rotates of registers and memory. (Double shifts: complex_bits.cpp.)
#include "engine/interpret/shapes.h"

namespace trapline::engine::interpret {

Handler choose_shift(const Insn& insn, const Form& form) {
  const bool imm = form.shape == Shape::reg_imm;
  switch (insn.mnemonic) {
    case ZYDIS_MNEMONIC_SHL:
      return choose<Shl>(form);
    case ZYDIS_MNEMONIC_SHR:
      return choose<Shr>(form);
    case ZYDIS_MNEMONIC_SAR:
      return choose<Sar>(form);
    case ZYDIS_MNEMONIC_ROL:
      return imm ? choose<ByImmediate<Rol>>(form) : choose<Rol>(form);
    case ZYDIS_MNEMONIC_ROR:
      return imm ? choose<ByImmediate<Ror>>(form) : choose<Ror>(form);
    case ZYDIS_MNEMONIC_RCL:
      return choose<Rcl>(form);
    case ZYDIS_MNEMONIC_RCR:
      return choose<Rcr>(form);
    default:
      return nullptr;
  }
}

}  // namespace trapline::engine::interpret
