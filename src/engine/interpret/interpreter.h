// The reference engine: decoded blocks of threaded handlers, one per vCPU.
#pragma once

#include <memory>

#include "engine/engine.h"

namespace trapline::engine {

class CodeArena;

// `arena` holds the vector unit's thunks; one per VM, or one per vCPU.
std::unique_ptr<Engine> make_interpreter(cpu::Vcpu& cpu, CodeArena& arena);

// The same beside another engine of the same vCPU, to compare with it: keeps every budget to the instruction.
std::unique_ptr<Engine> make_reference(cpu::Vcpu& cpu, CodeArena& arena);

struct Accelerator;
// The same with an engine for what runs often (engine/accelerator.h).
std::unique_ptr<Engine> make_accelerated(cpu::Vcpu& cpu, CodeArena& arena, std::unique_ptr<Accelerator> accelerator);

}  // namespace trapline::engine
