// The test that everything with a state must pass: saved twice it is the same; restored into a fresh one it is what was
// saved, and goes on as the original does. At random points of a random sequence, which a seed repeats.
//
// A rig is a subject with the fakes around it:
//   subject()           the Saveable object
//   environment(other)  takes over what is not the subject's: time, levels of wires, memory
//   act(random)         one random access, event or step of time; returns all that can be seen of it
#pragma once

#include <gtest/gtest.h>

#include <ostream>
#include <random>
#include <string>

#include "base/saveable.h"
#include "base/types.h"

namespace trapline::test {

using Random = std::mt19937_64;

template <class Rig>
void state_is_whole(u64 seed) {
  static_assert(Saveable<std::remove_cvref_t<decltype(std::declval<Rig&>().subject())>>);
  Random random{seed};
  Rig original;
  for (unsigned point = 0; point < 8; point++) {
    for (u64 steps = random() % 60; steps > 0; steps--) original.act(random);
    const auto saved = original.subject().save();
    ASSERT_TRUE(saved == original.subject().save()) << "saved twice, at point " << point;
    Rig fresh;
    for (u64 steps = random() % 8; steps > 0; steps--) fresh.act(random);  // nothing of its own may stay
    fresh.environment(original);
    fresh.subject().restore(saved);
    ASSERT_TRUE(saved == fresh.subject().save()) << "restored, at point " << point;
    Random same = random;
    for (unsigned step = 0; step < 40; step++) {
      ASSERT_EQ(original.act(random), fresh.act(same)) << "step " << step << " after point " << point;
      ASSERT_TRUE(original.subject().save() == fresh.subject().save()) << "step " << step << " after point " << point;
    }
  }
}

struct StateCase {
  const char* name;
  void (*check)(u64 seed);
};
inline void PrintTo(const StateCase& c, std::ostream* out) { *out << c.name; }
inline std::string name_of(const testing::TestParamInfo<StateCase>& info) { return info.param.name; }

struct StateIsWhole : testing::TestWithParam<StateCase> {};

}  // namespace trapline::test
