#include "monitor/reset_limit.h"

#include <gtest/gtest.h>

namespace trapline::monitor {
namespace {

using namespace std::chrono_literals;

TEST(ResetLimit, AGuestThatResetsAtOnceWaits) {
  ResetLimit limit;
  const ResetLimit::Clock::time_point t{100s};
  limit.started(t);
  EXPECT_EQ(limit.reset(t + 30ms), 70ms);
  limit.started(t + 100ms);
  EXPECT_EQ(limit.reset(t + 5s), 0ms);
}

TEST(ResetLimit, ShortLivesInARowAreCounted) {
  ResetLimit limit;
  ResetLimit::Clock::time_point t{100s};
  const auto lives = [&](int count, std::chrono::milliseconds each) {
    for (int i = 0; i < count; i++) limit.started(t), limit.reset(t += each);
  };
  lives(ResetLimit::kMostShortLives - 1, 200ms);
  EXPECT_FALSE(limit.exceeded());
  lives(1, 2000ms);
  lives(ResetLimit::kMostShortLives - 1, 200ms);
  EXPECT_FALSE(limit.exceeded()) << "one that lived in between";
  lives(1, 200ms);
  EXPECT_TRUE(limit.exceeded());
}

}  // namespace
}  // namespace trapline::monitor
