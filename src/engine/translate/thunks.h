// The few pieces of host code that every block shares: into translated code, out of it into C++, and the vector
// registers between the host's and cpu.vec.
#pragma once

#include "engine/translate/emitter.h"
#include "engine/translate/lower.h"

namespace trapline::engine::translate {

// What C++ answers a call from translated code: where to go on (0: leave), and whether the vector registers must be the
// guest's there.
struct Resume {
  u64 target;
  u64 vectors;
};
using CallHandler = Resume (*)(void* self, Site* site, u64 vectors_were_live);
using EnterThunk = void (*)(u64 target);

struct ThunkAddresses : Thunks {
  u64 enter = 0;  // EnterThunk
  u64 trap = 0;   // a signal handler sends translated code here
};

// Into `to` and RAX, and back through RAX.
inline void save_flags(Emitter& e, const u16& to) {
  e.put(0x9F, 0x0F, 0x90, 0xC0);  // LAHF; SETO AL
  e.op(0x66, false, 0x89, rax, var(&to));
}
inline void restore_flags(Emitter& e, const u16& from) {
  e.op(0, false, 0x0FB7, rax, var(&from));  // MOVZX
  e.put(0x04, 0x7F, 0x9E);                  // ADD AL, 7F: OF; SAHF: the others
}

// Emits all of them at `out`'s place. `trap_site`: what the handler is called with for `trap`.
ThunkAddresses emit_thunks(Emitter& out, cpu::Vcpu& cpu, State& state, CallHandler handler, void* self,
                           Site* trap_site);

}  // namespace trapline::engine::translate
