// When an address space gets a cage, and when it loses it.
#include "engine/patch/tiers.h"

#include <gtest/gtest.h>

namespace trapline::engine::patch {
namespace {

constexpr u64 kRoot = 0x1000, kOther = 0x2000;
constexpr Tiers::Costs kCosts{1'000'000, 10'000'000, 1000, 5'000'000};

struct TiersTest : testing::Test {
  Tiers tiers{kCosts, false};
  u64 now = 0, decoded = 0;
  // Signs of life of translated code, `ticks` in all; `fresh` instructions of it are new each time.
  void translate(u64 root, u64 ticks, u64 fresh = 50) {
    for (u64 done = 0; done < ticks; done += 100'000) tiers.translated(root, now += 100'000, decoded += fresh);
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

TEST_F(TiersTest, TimeBetweenDistantSignsDoesNotCount) {
  for (int i = 0; i < 100; i++) tiers.translated(kRoot, now += 1'000'000'000, decoded += 1000);
  EXPECT_FALSE(tiers.direct(kRoot));
}

TEST_F(TiersTest, NorDoesThatOfAnotherAddressSpace) {
  for (int i = 0; i < 100; i++) tiers.translated(i % 2 ? kRoot : kOther, now += 100'000, decoded += 1000);
  EXPECT_FALSE(tiers.direct(kRoot));
  EXPECT_FALSE(tiers.direct(kOther));
}

TEST_F(TiersTest, CheapHandOversKeepIt) {
  translate(kRoot, 1'200'000);
  for (int i = 0; i < 1000; i++) tiers.ran(kRoot, {.inside = 1'000'000, .beside = 300'000, .fetches = 0});
  EXPECT_TRUE(tiers.direct(kRoot));
}

TEST_F(TiersTest, NewCodeMayCostMore) {
  translate(kRoot, 1'200'000);
  for (int i = 0; i < 200; i++)
    tiers.ran(kRoot, {.inside = 300'000, .beside = 900'000, .fetches = 1});  // code pages go on coming
  EXPECT_TRUE(tiers.direct(kRoot));
  for (int i = 0; i < 200; i++) tiers.ran(kRoot, {.inside = 300'000, .beside = 900'000, .fetches = 0});
  EXPECT_FALSE(tiers.direct(kRoot));
}

TEST_F(TiersTest, ProgramsThatLiveInTheKernelLoseItSoon) {
  translate(kRoot, 1'200'000);
  for (int i = 0; i < 150; i++) tiers.ran(kRoot, {.inside = 5'000, .beside = 10'000, .calls = 1});
  EXPECT_FALSE(tiers.direct(kRoot));
}

TEST_F(TiersTest, DearOnesDemoteAndEachSetbackLastsLonger) {
  translate(kRoot, 1'200'000);
  u64 rest[2];
  for (u64& r : rest) {
    for (int i = 0; i < 1000 && tiers.direct(kRoot); i++)
      tiers.ran(kRoot, {.inside = 100'000, .beside = 900'000, .fetches = 0});
    ASSERT_FALSE(tiers.direct(kRoot));
    for (r = 0; !tiers.direct(kRoot); r += 100'000) translate(kRoot, 100'000);
  }
  EXPECT_GE(rest[0], kCosts.rest);
  EXPECT_GT(rest[1], rest[0]);
}

TEST_F(TiersTest, AlwaysMeansAlways) {
  Tiers always{kCosts, true};
  EXPECT_TRUE(always.direct(kOther));
  always.demote(kOther);
  EXPECT_TRUE(always.direct(kOther));
}

}  // namespace
}  // namespace trapline::engine::patch
