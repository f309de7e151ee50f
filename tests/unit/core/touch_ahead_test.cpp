#include "core/touch_ahead.h"

#include <gtest/gtest.h>

#include <set>

namespace trapline::core {
namespace {

TEST(TouchRequests, CoverWhatWasAskedForAndAreTakenOnce) {
  TouchRequests requests;
  TouchRequests::Request r;
  EXPECT_FALSE(requests.take(r));
  const u32 before = requests.bell();
  requests.put({0x7fff'1234'5678, 0x10000});
  EXPECT_NE(requests.bell(), before);
  ASSERT_TRUE(requests.take(r));
  EXPECT_LE(r.at, 0x7fff'1234'5678u);
  EXPECT_GE(r.at + r.bytes, 0x7fff'1234'5678u + 0x10000);
  EXPECT_LE(r.bytes, 0x20000u);
  EXPECT_FALSE(requests.take(r));
}

TEST(TouchRequests, TheNewestAreKept) {
  TouchRequests requests;
  for (u64 n = 1; n <= 100; n++) requests.put({n * MiB, 64 * KiB});
  std::set<u64> taken;
  for (TouchRequests::Request r; requests.take(r);) taken.insert(r.at / MiB);
  EXPECT_EQ(taken.size(), 16u);
  EXPECT_EQ(*taken.begin(), 85u);
  EXPECT_EQ(*taken.rbegin(), 100u);
}

}  // namespace
}  // namespace trapline::core
