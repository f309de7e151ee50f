// Full virtualization by translation: the interpreter for what runs seldom, translated blocks for the rest.
#pragma once

#include <memory>
#include <string>

#include "engine/engine.h"

namespace trapline::engine {

class CodeArena;

std::unique_ptr<Engine> make_translate(cpu::Vcpu& cpu, CodeArena& arena);
std::string translate_missing();  // what this host lacks for it, or empty

}  // namespace trapline::engine
