// Code patching: user code of 64-bit guests runs directly on the CPU, in cages; all else is translated.
#pragma once

#include <memory>
#include <string>

#include "engine/engine.h"
#include "engine/host_space.h"
#include "engine/options.h"
#include "engine/translate/engine.h"

namespace trapline::engine {

// Without cages (options.cages) it is `translate`.
std::unique_ptr<Engine> make_patch(cpu::Vcpu& cpu, CodeArena& arena, const VcpuSpace& space,
                                   const EngineOptions& options);
std::string patch_lacks();  // what this host lacks for it, or empty

}  // namespace trapline::engine
