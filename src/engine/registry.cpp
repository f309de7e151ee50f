#include "engine/registry.h"

#include "engine/interpret/interpreter.h"
#include "engine/translate/engine.h"

namespace trapline::engine {

namespace {

// Arena sizes are address space: pages are touched as code is made.
constexpr EngineKind kEngines[] = {
    {"translate", 16 * MiB, make_translate, translate_missing, true},
    {"interpret", 16 * MiB, make_interpreter, [] { return std::string{}; }, false},
};

}  // namespace

std::span<const EngineKind> engines() { return kEngines; }

const EngineKind* find_engine(std::string_view name) {
  if (name == "auto")
    for (const EngineKind& e : kEngines)
      if (e.missing().empty()) return &e;
  for (const EngineKind& e : kEngines)
    if (e.name == name) return &e;
  return nullptr;
}

std::string engine_names() {
  std::string out;
  for (const EngineKind& e : kEngines) out += std::string{out.empty() ? "" : ", "} + std::string{e.name};
  return out + " or auto";
}

}  // namespace trapline::engine
