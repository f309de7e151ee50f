#include "engine/registry.h"

#include <fmt/format.h>

#include "engine/interpret/interpreter.h"
#include "engine/patch/engine.h"
#include "engine/translate/engine.h"

namespace trapline::engine {

namespace {

// Arena sizes are address space: pages are touched as code is made.
constexpr EngineKind kEngines[] = {
    {"patch", 16 * MiB, make_patch, patch_lacks, kTranslateNeeds, true, true},
    {"translate", 16 * MiB, make_translate, translate_lacks, kTranslateNeeds, true},
    {"interpret",
     16 * MiB,
     [](cpu::Vcpu& cpu, CodeArena& arena, const VcpuSpace&, const EngineOptions&) {
       return make_interpreter(cpu, arena);
     },
     [] { return std::string{}; },
     {},
     false},
};

}  // namespace

std::span<const EngineKind> engines() { return kEngines; }

u32 EngineKind::room(u32 most) const {
  if (needs.near + needs.far == 0) return most;
  constexpr u64 kStructure = 64 * KiB;  // more than a vCPU is: only the order of magnitude counts
  const auto space = HostSpace::reserve(most, kStructure, needs);
  return space ? most : space.error();
}

std::string EngineKind::missing(u32 vcpus) const {
  if (std::string what = lacks(); !what.empty()) return what;
  // One more than asked for: the process that will need them has another layout, by address-space randomization.
  const u32 fit = room(vcpus + 1);
  if (fit > vcpus || needs.far == 0) return {};
  return fmt::format("address space for {} vCPU{}, {} GiB each ({})", vcpus, vcpus == 1 ? "" : "s",
                     (needs.near + needs.far) / GiB,
                     fit > 1 ? fmt::format("there is room for {}", fit - 1)
                             : std::string{"ulimit -v, ulimit -d or vm.overcommit_memory=2 may limit it"});
}

const EngineKind* find_engine(std::string_view name, u32 vcpus) {
  if (name == "auto")
    for (const EngineKind& e : kEngines)
      if (e.missing(vcpus).empty()) return &e;
  for (const EngineKind& e : kEngines)
    if (e.name == name) return &e;
  return nullptr;
}

const EngineKind& next_engine(const EngineKind& kind) { return &kind == &frugal_engine() ? kind : *(&kind + 1); }

std::string no_engine() { return fmt::format(": no such engine: use {}", engine_names()); }

std::string engine_names() {
  std::string out;
  for (const EngineKind& e : kEngines) out += std::string{out.empty() ? "" : ", "} + std::string{e.name};
  return out + " or auto";
}

}  // namespace trapline::engine
