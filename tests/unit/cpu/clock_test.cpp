#include "cpu/clock.h"

#include <gtest/gtest.h>

namespace trapline::cpu {
namespace {

TEST(Clock, InstructionsAreTicks) {
  Clock c;
  c.instructions = true;
  c.virtual_base = 5'000;
  EXPECT_EQ(c.tsc(0), 5'000u);
  EXPECT_EQ(c.tsc(17), 5'017u);
  EXPECT_EQ(c.tsc_to_ns(1'000), 1'000u) << "1 GHz";
}

TEST(Clock, RealTimeIsTheHostsPlusAnOffset) {
  Clock c;
  c.tsc_offset = 0 - __rdtsc();
  const u64 first = c.tsc(0);
  EXPECT_LT(first, 10'000'000'000u) << "counts from about zero";
  EXPECT_GE(c.tsc(999), first) << "retired instructions do not matter";
}

TEST(Clock, ConversionsDoNotOverflow) {
  Clock c;
  c.tsc_khz = 2'300'000;
  EXPECT_EQ(c.tsc_to_ns(2'300), 1'000u);
  EXPECT_EQ(c.ns_to_tsc(1'000), 2'300u);
  const u64 year_ns = 365ull * 86'400 * 1'000'000'000;
  EXPECT_EQ(c.tsc_to_ns(c.ns_to_tsc(year_ns)), year_ns);
}

TEST(Clock, TheApicTimersRateFitsThirtyTwoBitsOfHertz) {
  for (const u64 khz : {1'000'000ull, 4'294'967ull, 4'294'968ull, 6'000'000ull})
    EXPECT_LE(khz * 1000 / lapic_prescale(khz), 0xffffffffull) << khz;
  EXPECT_EQ(lapic_prescale(2'300'000), 1u);
}

}  // namespace
}  // namespace trapline::cpu
