// Full virtualization by translation: the interpreter for what runs seldom, translated blocks for the rest.
#pragma once

#include <memory>
#include <string>

#include "engine/engine.h"
#include "engine/host_space.h"
#include "engine/hostcode/region.h"
#include "engine/options.h"
#include "engine/translate/views.h"

namespace trapline::engine {

class CodeArena;

inline constexpr SpaceNeeds kTranslateNeeds{hostcode::Region::bytes_for(hostcode::kCodeBytes), translate::Views::kBytes,
                                            hostcode::kCodeBytes};
std::unique_ptr<Engine> make_translate(cpu::Vcpu& cpu, CodeArena& arena, const VcpuSpace& space,
                                       const EngineOptions& options);
std::string translate_lacks();  // what this host lacks for it, or empty

}  // namespace trapline::engine
