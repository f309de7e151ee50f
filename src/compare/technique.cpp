#include "compare/technique.h"

#include <algorithm>

#include "engine/registry.h"

namespace trapline::compare {

std::vector<Technique> all_techniques(const std::vector<Interface>& interfaces, u32 vcpus) {
  std::vector<Technique> all;
  for (const engine::EngineKind& kind : engine::engines())
    if (kind.missing(vcpus).empty())
      for (const bool traps : {true, false})
        for (const Interface& para : interfaces)
          if (!traps || kind.cages) all.push_back({std::string{kind.name}, para, !kind.verifiable, kind.cages, traps});
  // The registry has the best first.
  std::stable_sort(all.begin(), all.end(), [](const Technique& a, const Technique& b) { return a.slow && !b.slow; });
  const auto compiled = std::find_if(all.begin(), all.end(), [](const Technique& t) { return !t.slow; });
  std::reverse(compiled, all.end());
  for (auto first = compiled; first != all.end();) {  // interfaces stay in their order
    const auto last = std::find_if(first, all.end(), [&](const Technique& t) { return t.way() != first->way(); });
    std::reverse(first, last);
    first = last;
  }
  return all;
}

}  // namespace trapline::compare
