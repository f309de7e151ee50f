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

}  // namespace trapline::isa
