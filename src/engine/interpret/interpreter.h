// The reference engine: decoded blocks of threaded handlers, one per vCPU.
#pragma once

#include <memory>

#include "engine/engine.h"

namespace trapline::engine {

class CodeArena;

// `arena` holds the vector unit's thunks; one per VM, or one per vCPU.
std::unique_ptr<Engine> make_interpreter(cpu::Vcpu& cpu, CodeArena& arena);

}  // namespace trapline::engine
