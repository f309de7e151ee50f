// The engines of this version, by name. The one place where an engine is plugged in: a row in registry.cpp, and
// `trapline run --engine`, `trapline fuzz --engine`, `trapline doctor` and the core know it.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "engine/engine.h"
#include "engine/host_space.h"
#include "engine/options.h"

namespace trapline::engine {

class CodeArena;

struct EngineKind {
  std::string_view name;  // as --engine spells it
  u64 arena_bytes;        // generated code of one vCPU: address space of the arena that `make` is given
  // One per vCPU, made before the sandbox closes: the last moment for system calls. Stays on the thread that runs
  // `cpu`; dies before `cpu`, `arena` and what `space` names: room as `needs` says, with `cpu` in the structure, or
  // none.
  std::unique_ptr<Engine> (*make)(cpu::Vcpu& cpu, CodeArena& arena, const VcpuSpace& space,
                                  const EngineOptions& options);
  std::string (*lacks)();  // what this host lacks for it, or empty
  SpaceNeeds needs;
  bool verifiable;     // has code to compare with the interpreter (--verify)
  bool cages = false;  // uses those of EngineOptions::cages

  // What this host, with the limits that this process has, lacks for a VM of so many vCPUs, or empty.
  std::string missing(u32 vcpus = 1) const;
  // For how many vCPUs, up to `most`, there is address space.
  u32 room(u32 most) const;
};

// Best first.
std::span<const EngineKind> engines();
// Null: this version has none of that name. "auto" is the first that this host lacks nothing for; `vcpus`: of the VM.
const EngineKind* find_engine(std::string_view name, u32 vcpus = 1);
// For a host, or a limit, that has too little for this one: the next of them; and the one that needs nothing.
const EngineKind& next_engine(const EngineKind& kind);
inline const EngineKind& frugal_engine() { return engines().back(); }
// What to say behind a name that find_engine does not know: ": no such engine: use a, b or auto".
std::string no_engine();
// "a, b or auto", for messages that name the remedy.
std::string engine_names();

}  // namespace trapline::engine
