#include "engine/patch/poll_limit.h"

#include <gtest/gtest.h>

namespace trapline::engine::patch {
namespace {

constexpr u64 kLeast = 400, kMost = 4000;

void observe(PollLimit& limit, u64 turn, int times) {
  for (int i = 0; i < times; i++) limit.observe(turn);
}

TEST(PollLimit, BeginsAndStaysAtTheLeastForProgramsThatCompute) {
  PollLimit limit{kLeast, kMost};
  EXPECT_EQ(limit.ticks(), kLeast);
  observe(limit, 1'000'000, 100);
  EXPECT_EQ(limit.ticks(), kLeast);
}

TEST(PollLimit, FollowsTurnsThatItCanSeeTheEndOf) {
  PollLimit limit{kLeast, kMost};
  observe(limit, 1400, 60);
  EXPECT_GT(limit.ticks(), 1400u);
  EXPECT_LE(limit.ticks(), kMost);
  observe(limit, 10, 100);
  EXPECT_EQ(limit.ticks(), kLeast) << "never less";
}

TEST(PollLimit, OneLongTurnIsForgotten) {
  PollLimit limit{kLeast, kMost};
  observe(limit, 1000, 60);
  limit.observe(100'000'000);
  observe(limit, 1000, 8);
  EXPECT_GT(limit.ticks(), 1000u);
  observe(limit, 100'000'000, 4);
  EXPECT_EQ(limit.ticks(), kLeast) << "several are not";
}

}  // namespace
}  // namespace trapline::engine::patch
