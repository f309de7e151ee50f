// What a trap takes, learnt from turns that did little else.
#include "engine/patch/trap_cost.h"

#include <gtest/gtest.h>

namespace trapline::engine::patch {
namespace {

TEST(TrapCost, FollowsTheShortTurns) {
  TrapCost cost{1'000, 100'000};
  for (int i = 0; i < 2000; i++) cost.observe(i % 4 == 0 ? 30'000 : 200'000 + static_cast<u64>(i));
  EXPECT_GT(cost.ticks(), 20'000U);
  EXPECT_LT(cost.ticks(), 60'000U);
}

TEST(TrapCost, FollowsThemDown) {
  TrapCost cost{1'000, 100'000};
  for (int i = 0; i < 2000; i++) cost.observe(90'000);
  for (int i = 0; i < 200; i++) cost.observe(5'000);
  EXPECT_LT(cost.ticks(), 8'000U);
}

TEST(TrapCost, AComputingProgramIsNotAllTrap) {
  TrapCost cost{1'000, 100'000};
  for (int i = 0; i < 5000; i++) cost.observe(1'000'000'000);
  EXPECT_EQ(cost.ticks(), 100'000U);
  for (int i = 0; i < 5000; i++) cost.observe(0);
  EXPECT_EQ(cost.ticks(), 1'000U);
}

}  // namespace
}  // namespace trapline::engine::patch
