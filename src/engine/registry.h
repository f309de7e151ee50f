// The engines of this version, by name. The one place where an engine is plugged in: a row in registry.cpp, and
// `trapline run --engine`, `trapline fuzz --engine`, `trapline doctor` and the core know it.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "engine/engine.h"

namespace trapline::engine {

class CodeArena;

struct EngineKind {
  std::string_view name;  // as --engine spells it
  u64 arena_bytes;        // generated code of one vCPU: address space of the arena that `make` is given
  // One per vCPU, made before the sandbox closes: the last moment for system calls. Stays on the thread that runs
  // `cpu`; dies before `cpu` and `arena`.
  std::unique_ptr<Engine> (*make)(cpu::Vcpu& cpu, CodeArena& arena);
  std::string (*missing)();  // what this host lacks for it, or empty
  bool verifiable;           // has code to compare with the interpreter (--verify)
};

// Best first.
std::span<const EngineKind> engines();
// Null: this version has none of that name. "auto" is the first that this host lacks nothing for.
const EngineKind* find_engine(std::string_view name);
// "a, b or auto", for messages that name the remedy.
std::string engine_names();

}  // namespace trapline::engine
