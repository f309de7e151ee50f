// The engines of this version, for suites that run on each of them.
#pragma once

#include <vector>

#include "engine/registry.h"

namespace trapline::test {

inline const std::vector<const char*> kEngines = [] {
  std::vector<const char*> names;
  for (const engine::EngineKind& kind : engine::engines()) names.push_back(kind.name.data());  // literals
  return names;
}();

}  // namespace trapline::test

// In SetUp or a test's body. Beside AddressSanitizer's shadow memory, for one, there is no room for translate's tables.
#define SKIP_UNLESS_OFFERED(name)                                  \
  do {                                                             \
    if (!::trapline::engine::find_engine(name)->missing().empty()) \
      GTEST_SKIP() << (name) << " is not offered on this host";    \
  } while (false)
