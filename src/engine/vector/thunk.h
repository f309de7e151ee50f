// The wrapper around a rebuilt instruction: loads of the registers it reads, the instruction, stores of those it
// writes.
//
//   thunk(cpu in RDI, memory in RSI):  [flags in] [GPRs in] [vectors, opmasks in]  instruction  [out, the same]
//   xor rax, rax; ret
//
// A leaf that never moves RSP and stores nothing before the instruction has retired: the signal handler may end it at
// the instruction as if it had not begun.
#pragma once

#include "engine/emit/rebuild.h"

namespace trapline::engine::vector {

using namespace emit;

// At `out`'s place. False: cannot be built (see rebuild()).
bool build_thunk(const Decoded& d, const u8* source, Emitter& out);

}  // namespace trapline::engine::vector
