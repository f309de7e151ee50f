// A thunk: a load over the end of a page.
#pragma once

#include "engine/hostcode/region.h"

namespace trapline::engine::hostcode {
class Emitter;
}

namespace trapline::engine::translate {

// Emits it at `out`'s place, for loads of up to `bytes`: 8, 16, 32 or 64. It is entered with R11 = ExitStub* and RCX = the
// address; where both pages have entries it goes on at `hit`, else as a call of C++.
void emit_gather(hostcode::Emitter& out, hostcode::State& state, u8 bytes, u64 call);

}  // namespace trapline::engine::translate
