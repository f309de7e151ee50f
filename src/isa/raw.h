// A decoded instruction as Zydis gives it, for those who encode it again.
#pragma once

#include "isa/insn.h"

namespace trapline::isa {

struct Raw {
  ZydisDecodedInstruction insn;
  ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];  // the first insn.operand_count are set
};

// Both forms from one decoding. `raw` is whole only on ok.
DecodeStatus decode(const u8* bytes, std::size_t available, CodeSize size, Vendor vendor, Insn& out, Raw& raw);

// An encoding that Zydis knows, of an extension that no CPU has any more or that is never offered to a guest: #UD,
// though its mnemonic may be that of an offered one (Knights Corner's VEX-coded POPCNT and TZCNT, TBM's BEXTR).
inline bool never_offered(const Raw& raw) {
  switch (raw.insn.meta.isa_ext) {
    case ZYDIS_ISA_EXT_KNC:
    case ZYDIS_ISA_EXT_KNCE:
    case ZYDIS_ISA_EXT_KNCV:
    case ZYDIS_ISA_EXT_TBM:
    case ZYDIS_ISA_EXT_XOP:
      return true;
    default:
      return false;
  }
}

}  // namespace trapline::isa
