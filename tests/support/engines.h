// The engines that the guest suites run, each for all of its guests: an engine that is built in belongs here.
#pragma once

namespace trapline::test {

inline constexpr const char* kEngines[] = {"interpret", "translate"};

}  // namespace trapline::test
