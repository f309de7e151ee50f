// Engines that this host cannot run. Beside AddressSanitizer's shadow memory, for one, there is no room for translate's
// tables.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "support/process.h"

namespace trapline::test {

inline bool offered(const std::string& executable, const std::string& engine) {
  return run({executable, "run", "--engine", engine, "--kernel", "/"}).output.find("this host lacks") ==
         std::string::npos;
}

}  // namespace trapline::test

// In SetUp or a test's body.
#define SKIP_UNLESS_OFFERED(engine)                            \
  if (!::trapline::test::offered(TRAPLINE_EXECUTABLE, engine)) \
  GTEST_SKIP() << (engine) << " is not offered on this host"
