// The engines that the guest suites run, each for all of its guests: an engine that is built in belongs here.
#pragma once

#include "engine/registry.h"

namespace trapline::test {

inline constexpr const char* kEngines[] = {"interpret", "translate", "patch"};

}  // namespace trapline::test

// In SetUp or a test's body. Beside AddressSanitizer's shadow memory, for one, there is no room for translate's tables.
#define SKIP_UNLESS_OFFERED(name)                                  \
  do {                                                             \
    if (!::trapline::engine::find_engine(name)->missing().empty()) \
      GTEST_SKIP() << (name) << " is not offered on this host";    \
  } while (false)
