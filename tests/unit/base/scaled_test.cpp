#include "base/scaled.h"

#include <gtest/gtest.h>

#include <random>

namespace trapline {
namespace {

TEST(Scaled, IsTheQuotientOfTheWholeProduct) {
  std::mt19937_64 random{1};
  const std::pair<u64, u64> rates[] = {
      {1'193'182, 1'000'000'000}, {3'579'545, 1'000'000'000}, {1'000'000, 2'399'998}, {2'399'998, 1'000'000}};
  for (const auto& [to, from] : rates)
    for (int i = 0; i < 10'000; i++) {
      const u64 value = random() >> (i % 64);
      EXPECT_EQ(scaled(value, to, from), static_cast<u64>(static_cast<u128>(value) * to / from)) << value;
    }
}

}  // namespace
}  // namespace trapline
