// The few pieces of host code that every block shares: into translated code, out of it into C++, and the vector
// registers between the host's and cpu.vec.
#pragma once

#include "engine/emit/emitter.h"
#include "engine/hostcode/lower.h"

namespace trapline::engine::hostcode {

// What C++ answers a call from translated code: where to go on (0: leave), and whether the vector registers must be the
// guest's there.
struct Resume {
  u64 target;
  u64 vectors;
};
using CallHandler = Resume (*)(void* self, ExitStub* site, u64 vectors_were_live);
using EnterThunk = void (*)(u64 target);

struct ThunkAddresses : Thunks {
  u64 enter = 0;  // EnterThunk
  u64 trap = 0;   // a signal handler sends translated code here
};

// Into `to` and RAX, and back through RAX.
inline void save_flags(Emitter& e, const u16& to) {
  e.lahf_seto();
  e.store16(var(&to), rax);
}
inline void restore_flags(Emitter& e, const u16& from) {
  e.movzx16(rax, var(&from));
  e.add7f_sahf();
}

// Emits all of them at `out`'s place. `trap_site`: what the handler is called with for `trap`.
ThunkAddresses emit_thunks(Emitter& out, cpu::Vcpu& cpu, State& state, CallHandler handler, void* self,
                           ExitStub* trap_site);

}  // namespace trapline::engine::hostcode
