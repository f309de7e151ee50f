// Parts of thunks: the vector registers, opmasks and MXCSR between the host's and cpu.vec. State::vec_live says where they
// are.
#pragma once

#include "cpu/vcpu.h"
#include "engine/emit/emitter.h"
#include "engine/hostcode/region.h"

namespace trapline::engine::hostcode {

using namespace emit;

// The guest's into cpu.vec, and the host's MXCSR: C++ may run then.
void save_vectors(Emitter& e, cpu::Vcpu& cpu, State& state);
// The guest's from cpu.vec. Clobbers RCX, and no flag.
void load_vectors(Emitter& e, cpu::Vcpu& cpu, State& state);

}  // namespace trapline::engine::hostcode
