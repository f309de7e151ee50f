// String instructions whose operands emitted code can reach.
#pragma once

#include "isa/insn.h"

namespace trapline::engine::hostcode {

enum class StringOp : u8 { movs, stos, lods, cmps, scas };

// The mode's address size, flat segments.
struct StringForm {
  StringOp op;
  u8 size_log2;  // of an element
  bool repeats;
  bool while_equal;  // REPE
  bool reads_source() const { return op != StringOp::stos && op != StringOp::scas; }
  bool has_destination() const { return op != StringOp::lods; }
  bool compares() const { return op == StringOp::cmps || op == StringOp::scas; }
};
// Of `insn` in code of 64 or 32 bits; false: it is none.
bool string_form(const isa::Insn& insn, bool bits64, StringForm* form);

}  // namespace trapline::engine::hostcode
