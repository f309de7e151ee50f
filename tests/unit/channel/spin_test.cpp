#include "channel/spin.h"

#include <gtest/gtest.h>

namespace trapline::channel {
namespace {

TEST(Spin, PollsWhileAnswersComeSoonAndStopsWhenTheyDoNot) {
  Spin s{100'000};
  for (int i = 0; i < 50; i++) s.observe(1'000);
  EXPECT_GT(s.limit(), 1'000u);
  EXPECT_LT(s.limit(), 100'000u);
  for (int i = 0; i < 50; i++) s.observe(10'000'000);
  EXPECT_EQ(s.limit(), 0u);
  for (int i = 0; i < 50; i++) s.observe(1'000);
  EXPECT_GT(s.limit(), 0u);
}

TEST(Spin, NeverPollsOnOneCpu) {
  Spin s{0};
  s.observe(10);
  EXPECT_EQ(s.limit(), 0u);
  int asked = 0;
  EXPECT_FALSE(s.wait([&] {
    asked++;
    return false;
  }));
  EXPECT_EQ(asked, 1);
}

TEST(Spin, SeesWhatIsThereAlready) {
  Spin s{0};
  EXPECT_TRUE(s.wait([] { return true; }));
}

TEST(Patience, GivesUpPollingInVainButTriesAgain) {
  Patience p{20'000};
  u64 most = 0, last = 0;
  for (int i = 0; i < 600; i++) {
    u64 asked = 0;
    EXPECT_FALSE(p.wait([&] {
      asked++;
      return false;
    }));
    if (i > 10) most = std::max(most, asked);
    last = asked;
  }
  EXPECT_EQ(last, 1u) << "given up";
  EXPECT_GT(most, 10u) << "but tried at full length now and then";
}

}  // namespace
}  // namespace trapline::channel
