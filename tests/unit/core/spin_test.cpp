#include "core/spin.h"

#include <gtest/gtest.h>

namespace trapline::core {
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
  EXPECT_FALSE(s.wait([&] { asked++; return false; }));
  EXPECT_EQ(asked, 1);
}

TEST(Spin, SeesWhatIsThereAlready) {
  Spin s{0};
  EXPECT_TRUE(s.wait([] { return true; }));
}

}  // namespace
}  // namespace trapline::core
