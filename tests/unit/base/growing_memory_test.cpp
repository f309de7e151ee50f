#include "base/growing_memory.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <map>
#include <vector>

namespace trapline {
namespace {

u64 address(const void* p) { return reinterpret_cast<u64>(p); }

// Is the page at `at` mapped?
bool mapped(const void* at) {
  unsigned char in_core = 0;
  return ::mincore(reinterpret_cast<void*>(address(at) & kPageMask), kPageSize, &in_core) == 0;
}

TEST(GrowingMemory, AllocationsAreApartAlignedAndZero) {
  GrowingMemory memory;
  std::vector<std::pair<u8*, u64>> all;
  for (u64 i = 0; i < 2000; i++) {
    const u64 bytes = 1 + i * 7919 % 9000, alignment = u64{1} << i % 7;
    auto* const at = static_cast<u8*>(memory.allocate(bytes, alignment));
    ASSERT_EQ(address(at) % alignment, 0u);
    for (u64 k = 0; k < bytes; k++) ASSERT_EQ(at[k], 0) << i;
    std::memset(at, static_cast<int>(i % 255 + 1), bytes);
    all.emplace_back(at, bytes);
  }
  for (u64 i = 0; i < all.size(); i++)
    for (u64 k = 0; k < all[i].second; k++) ASSERT_EQ(all[i].first[k], i % 255 + 1) << i;
}

TEST(GrowingMemory, OneThatIsLargerThanAChunkFits) {
  GrowingMemory memory;
  auto* const small = static_cast<u8*>(memory.allocate(100, 8));
  auto* const large = static_cast<u8*>(memory.allocate(3 * kHugePage + 5, 4096));
  std::memset(large, 1, 3 * kHugePage + 5);
  std::memset(small, 2, 100);
  EXPECT_EQ(large[3 * kHugePage + 4], 1);
  EXPECT_EQ(address(large) % 4096, 0u);
}

// A table that sheds what was erased is made anew as large, again and again, as long as a VM runs.
TEST(GrowingMemory, WhatContainersHaveOutgrownIsUsedAgain) {
  GrowingMemory memory;
  constexpr u64 kMost = 40 * MiB;
  u64 lowest = ~u64{0}, highest = 0;
  for (unsigned round = 0; round < 200; round++)
    for (u64 bytes = 4096; bytes < 4 * MiB; bytes += bytes / 3 + round % 5) {
      void* const at = memory.allocate(bytes, 8);
      lowest = std::min(lowest, address(at)), highest = std::max(highest, address(at) + bytes);
      std::memset(at, 1, 64);
      memory.deallocate(at, bytes, 8);
    }
  EXPECT_LT(highest - lowest, kMost);
}

TEST(GrowingMemory, WhatIsUsedAgainIsLargeEnoughAndNobodyElses) {
  GrowingMemory memory;
  std::map<u8*, u64> alive;
  u64 state = 1;
  for (unsigned step = 0; step < 20000; step++) {
    state = state * 6364136223846793005 + 1442695040888963407;
    if (alive.size() > 30) {
      const auto victim = std::next(alive.begin(), static_cast<long>((state >> 40) % alive.size()));
      for (u64 k = 0; k < victim->second; k += 512) ASSERT_EQ(victim->first[k], victim->second & 0xff);
      memory.deallocate(victim->first, victim->second, 16);
      alive.erase(victim);
    }
    const u64 bytes = 1 + (state >> 33) % 40000;
    auto* const at = static_cast<u8*>(memory.allocate(bytes, 16));
    std::memset(at, static_cast<int>(bytes & 0xff), bytes);
    alive[at] = bytes;
  }
}

TEST(GrowingMemory, ReleaseGivesEverythingBackAndItGoesOn) {
  GrowingMemory memory;
  void* const first = memory.allocate(1000, 8);
  void* const later = memory.allocate(kHugePage, 8);
  ASSERT_TRUE(mapped(first) && mapped(later));
  memory.release();
  EXPECT_FALSE(mapped(first));
  EXPECT_FALSE(mapped(later));
  auto* const again = static_cast<u8*>(memory.allocate(64, 8));
  again[63] = 1;
  EXPECT_TRUE(mapped(again));
}

TEST(GrowingMemory, AHugePageCanBeOne) {
  void* const at = map_huge(kHugePage);
  ASSERT_NE(at, nullptr);
  EXPECT_EQ(address(at) % kHugePage, 0u);
  ::munmap(at, kHugePage);
}

}  // namespace
}  // namespace trapline
