// Near control flow: what build.cpp asks of branch.cpp.
#pragma once

#include "engine/interpret/op.h"

namespace trapline::engine::interpret {

// Handlers for flat code segments and native widths; null: use find_complex. `cross`: a target or the next instruction
// is on another page than the block.
Handler choose_branch(const Insn& insn, u32 key, bool cross);
Handler choose_fall_through(bool cross);
// For a CMP or TEST of registers or immediates directly before a Jcc; null: run them one by one.
Handler choose_fused(const Insn& compare, int cc, bool cross);

}  // namespace trapline::engine::interpret
