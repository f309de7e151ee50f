// Thunks: a load or a store over the end of a page.
#pragma once

#include "engine/emit/emitter.h"
#include "engine/hostcode/host.h"
#include "engine/hostcode/region.h"

namespace trapline::engine::translate {

// Emits it at `out`'s place, for accesses of up to `bytes`: 8, 16, 32 or 64. It is entered with R11 = ExitStub* and RCX =
// the address; where both pages have entries it goes on at `hit` with a copy of the bytes, else as a call of C++. Of a
// store `hit` is a copy of the instruction, with a jump to what emit_scatter() emits behind it.
void emit_gather(emit::Emitter& out, hostcode::State& state, const hostcode::HostWays& ways, u8 bytes, bool store,
                 u64 call);
// What puts the stored bytes in their two places and goes on at R11. `many`: more than a few.
void emit_scatter(emit::Emitter& out, hostcode::State& state, bool many);

}  // namespace trapline::engine::translate
