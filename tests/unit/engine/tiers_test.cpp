// When an address space gets a cage, and when it loses it.
#include "engine/patch/tiers.h"

#include <gtest/gtest.h>

namespace trapline::engine::patch {
namespace {

constexpr u64 kRoot = 0x1000, kOther = 0x2000;
constexpr Tiers::Costs kCosts{.promote_after = 1'000'000,
                              .promote_hot = 10'000'000,
                              .decoding = 1000,
                              .invest_hot = 10'000'000,
                              .invest_page = 1'000'000,
                              .invest_new = 100'000'000,
                              .rest = 5'000'000,
                              .stop = 40'000};

struct TiersTest : testing::Test {
  Tiers tiers{kCosts, false};
  // Stretches of translated code, `ticks` in all; `fresh` instructions of each are new.
  void translate(u64 root, u64 ticks, u64 fresh = 50) {
    for (u64 done = 0; done < ticks; done += 100'000) tiers.translated(root, 100'000, fresh, true);
  }
};

TEST_F(TiersTest, UserTimePromotes) {
  EXPECT_FALSE(tiers.direct(kRoot));
  translate(kRoot, 900'000);
  EXPECT_FALSE(tiers.direct(kRoot));
  translate(kRoot, 300'000);
  EXPECT_TRUE(tiers.direct(kRoot));
  EXPECT_FALSE(tiers.direct(kOther));
}

TEST_F(TiersTest, CodeThatIsTranslatedAlreadyWaitsLonger) {
  translate(kRoot, 9'000'000, 0);
  EXPECT_FALSE(tiers.direct(kRoot));
  translate(kRoot, 2'000'000, 0);
  EXPECT_TRUE(tiers.direct(kRoot));
}

TEST_F(TiersTest, TimeOfAnotherAddressSpaceDoesNotCount) {
  for (int i = 0; i < 18; i++) tiers.translated(i % 2 ? kRoot : kOther, 100'000, 1000, true);
  EXPECT_FALSE(tiers.direct(kRoot));
  EXPECT_FALSE(tiers.direct(kOther));
}

TEST_F(TiersTest, WhoEntersTheKernelAllTheTimeStaysTranslated) {
  const auto enter_every = [&](u64 ticks, u64 in_all) {
    for (u64 done = 0; done < in_all; done += ticks) tiers.translated(kRoot, ticks, 0, true);
  };
  enter_every(10'000, 500'000'000);
  EXPECT_FALSE(tiers.direct(kRoot)) << "a stop takes four times as long";
  EXPECT_EQ(tiers.promotions, 0u);
  enter_every(200'000, 25'000'000);
  EXPECT_TRUE(tiers.direct(kRoot)) << "it is another program by now";
}

TEST_F(TiersTest, AStretchThatGoesOnIsNoEntry) {
  for (u64 done = 0; done < 20'000'000; done += 10'000) tiers.translated(kRoot, 10'000, 0, false);
  EXPECT_TRUE(tiers.direct(kRoot));
}

TEST_F(TiersTest, HotCodeThatOnlyFaultsLosesItSoon) {
  translate(kRoot, 11'000'000, 0);
  for (int i = 0; i < 110; i++) tiers.ran(kRoot, {.inside = 5'000, .beside = 40'000, .faults = 1});
  EXPECT_FALSE(tiers.direct(kRoot));
  // New code would be dear to translate, as long as more of it comes.
  translate(kOther, 2'000'000);
  for (int i = 0; i < 500; i++)
    tiers.ran(kOther, {.inside = 5'000, .beside = 40'000, .faults = 1, .fetches = i % 8 == 0});
  EXPECT_TRUE(tiers.direct(kOther));
  for (int i = 0; i < 3000; i++) tiers.ran(kOther, {.inside = 5'000, .beside = 40'000, .faults = 1});
  EXPECT_FALSE(tiers.direct(kOther));
}

TEST_F(TiersTest, CheapHandOversKeepIt) {
  translate(kRoot, 1'200'000);
  for (int i = 0; i < 1000; i++) tiers.ran(kRoot, {.inside = 1'000'000, .beside = 300'000});
  EXPECT_TRUE(tiers.direct(kRoot));
}

TEST_F(TiersTest, NewCodeMayCostMore) {
  const auto stays = [&](u64 root) {
    int runs = 0;
    for (; runs < 1000 && tiers.direct(root); runs++)
      tiers.ran(root, {.inside = 300'000, .beside = 900'000, .faults = 1, .fetches = 1});
    return runs;
  };
  translate(kRoot, 1'200'000);
  translate(kOther, 13'000'000, 0);
  const int as_new = stays(kRoot), hot = stays(kOther);
  EXPECT_GT(hot, 10);
  EXPECT_GT(as_new, 5 * hot);
  EXPECT_LT(as_new, 1000);
}

TEST_F(TiersTest, AGoodStretchMakesUpForABadOne) {
  translate(kRoot, 11'000'000, 0);
  for (int i = 0; i < 300; i++) {
    for (int j = 0; j < 20; j++) tiers.ran(kRoot, {.inside = 300'000, .beside = 900'000});
    for (int j = 0; j < 40; j++) tiers.ran(kRoot, {.inside = 300'000, .beside = 100'000});
  }
  EXPECT_TRUE(tiers.direct(kRoot));
}

TEST_F(TiersTest, ProgramsThatLiveInTheKernelLoseItSoon) {
  translate(kRoot, 11'000'000, 0);
  for (int i = 0; i < 150; i++) tiers.ran(kRoot, {.inside = 5'000, .beside = 10'000, .calls = 1});
  EXPECT_FALSE(tiers.direct(kRoot));
}

TEST_F(TiersTest, ShortTurnsBetweenCheapStopsKeepIt) {
  translate(kRoot, 11'000'000, 0);
  for (int i = 0; i < 1500; i++) tiers.ran(kRoot, {.inside = 23'000, .beside = 8'000, .calls = 1});
  EXPECT_TRUE(tiers.direct(kRoot));
}

TEST_F(TiersTest, DearOnesDemoteAndEachSetbackLastsLonger) {
  translate(kRoot, 1'200'000);
  u64 rest[2];
  for (u64& r : rest) {
    for (int i = 0; i < 1000 && tiers.direct(kRoot); i++) tiers.ran(kRoot, {.inside = 100'000, .beside = 900'000});
    ASSERT_FALSE(tiers.direct(kRoot));
    for (r = 0; !tiers.direct(kRoot); r += 100'000) translate(kRoot, 100'000);
  }
  EXPECT_GE(rest[0], kCosts.rest);
  EXPECT_GT(rest[1], rest[0]);
}

// A boot: programs that end before their cages are filled.
TEST_F(TiersTest, ProgramsThatEndSoonMakeTheNextOnesWait) {
  const auto needed = [&](u64 root) {
    u64 ticks = 0;
    for (; !tiers.direct(root); ticks += 100'000) translate(root, 100'000);
    return ticks;
  };
  const u64 first = needed(kRoot);
  u64 last = first;
  for (u64 root = 0x100000; root < 0x120000; root += 0x1000) {
    EXPECT_GE(needed(root), last);
    last = needed(root + 0x1000000);
    for (int i = 0; i < 20; i++) tiers.ran(root, {.inside = 20'000, .beside = 60'000, .faults = 1});
  }
  EXPECT_GT(last, 8 * first);
  // One that computes makes up for several.
  for (u64 root = 0x200000; root < 0x210000; root += 0x1000) {
    needed(root);
    for (int i = 0; i < 100; i++) tiers.ran(root, {.inside = 1'000'000, .beside = 40'000, .faults = 1});
  }
  EXPECT_LE(needed(kOther), 2 * first);
}

TEST_F(TiersTest, DearStopsMakeAllWait) {
  translate(kRoot, 1'200'000);
  for (int i = 0; i < 5000; i++) tiers.ran(kRoot, {.inside = 5'000'000, .beside = 10 * kCosts.stop, .faults = 1});
  ASSERT_TRUE(tiers.direct(kRoot));
  const auto compute = [&](u64 ticks) {
    for (u64 done = 0; done < ticks; done += 100'000) tiers.translated(kOther, 100'000, 50, false);
  };
  compute(5'000'000);
  EXPECT_FALSE(tiers.direct(kOther));
  compute(10'000'000);
  EXPECT_TRUE(tiers.direct(kOther));
}

TEST_F(TiersTest, CheapStopsMakeTheNextOnesWaitForLess) {
  translate(kRoot, 1'200'000);
  for (int i = 0; i < 2000; i++) tiers.ran(kRoot, {.inside = 40'000, .beside = 20'000, .calls = 1});
  ASSERT_TRUE(tiers.direct(kRoot));
  translate(kOther, 500'000, 90);
  EXPECT_FALSE(tiers.direct(kOther));
  translate(kOther, 200'000, 90);
  EXPECT_TRUE(tiers.direct(kOther));
  translate(kRoot + kOther, 200'000, 90);
  EXPECT_FALSE(tiers.direct(kRoot + kOther)) << "a quarter at least";
}

TEST_F(TiersTest, AlwaysMeansAlways) {
  Tiers always{kCosts, true};
  EXPECT_TRUE(always.direct(kOther));
  always.demote(kOther);
  EXPECT_TRUE(always.direct(kOther));
}

}  // namespace
}  // namespace trapline::engine::patch
