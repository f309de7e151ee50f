// A decoded guest instruction, written again for the host's 64-bit mode with its general registers and its memory
// operand replaced. Prefixes that matter, lengths, opmasks, rounding and immediates are kept.
#pragma once

#include "engine/emit/emitter.h"
#include "engine/emit/rebuild.h"

namespace trapline::engine::emit {

// What takes the place of each field. `reg`, `rm` and `vvvv` are host register numbers in the file of the operand
// (general ones mapped, vector ones as they are).
struct Fields {
  u8 reg = 0, rm = 0, vvvv = 0;
  u8 opcode_reg = 0;  // register in the opcode byte
  bool memory = false;
  Mem mem;
  bool force_rex = false;  // an 8-bit operand in SPL, BPL, SIL or DIL
};

// The fields as the guest has them.
Fields guest_fields(const Decoded& d);
bool has_opcode_register(const Decoded& d);
// With W as it is to be in the host's code.
void reencode_with(const Decoded& d, const u8* source, const Fields& f, bool wide, Emitter& out);
// False: has no host form (legacy-only opcodes); nothing was emitted.
bool reencode(const Decoded& d, const u8* source, const Fields& f, Emitter& out);

}  // namespace trapline::engine::emit
