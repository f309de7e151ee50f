#include "base/touch_ahead.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <map>

#include "base/growing_memory.h"
#include "base/guest_memory.h"

namespace trapline {
namespace {

std::map<u64, u64> g_asked;  // by address: bytes

class TouchAhead : public testing::Test {
 protected:
  void SetUp() override {
    g_asked.clear();
    set_touch_ahead([](u64 at, u64 bytes) { g_asked[at] += bytes; });
  }
  void TearDown() override {
    set_touch_ahead(nullptr);
    ::munmap(spare_huge(), kHugePage);
  }
  u64 asked_of(const GuestMemory& ram) const {
    u64 all = 0;
    for (const auto& [at, bytes] : g_asked)
      if (at - reinterpret_cast<u64>(ram.base()) < ram.high_end()) all += bytes;
    return all;
  }
};

TEST_F(TouchAhead, WhatIsTouchedInOrderIsAskedForInAdvanceAsMuchAsLiesBehind) {
  const GuestMemory ram = std::move(*GuestMemory::anonymous(64 * MiB));
  const auto touch = [&](u64 chunk) { ram.expect(Gpa{chunk * 64 * KiB + 123}); };
  touch(400);
  EXPECT_EQ(asked_of(ram), 0u) << "one alone has no direction";
  touch(401);
  EXPECT_EQ(g_asked, (std::map<u64, u64>{{reinterpret_cast<u64>(ram.host(Gpa{402 * 64 * KiB})), 128 * KiB}}));
  touch(402);
  touch(403);
  EXPECT_EQ(asked_of(ram), 6 * 64 * KiB) << "402 to 407, each once";
  for (u64 chunk = 404; chunk < 600; chunk++) touch(chunk);
  EXPECT_EQ(asked_of(ram), (599 + 32 - 402 + 1) * 64 * KiB) << "2 MiB ahead";
}

TEST_F(TouchAhead, DownwardsToo) {
  const GuestMemory ram = std::move(*GuestMemory::anonymous(64 * MiB));
  for (u64 chunk = 31; chunk + 1 > 0; chunk--) ram.expect(Gpa{chunk * 64 * KiB});
  EXPECT_GT(asked_of(ram), 0u);
  for (const auto& [at, bytes] : g_asked) {
    EXPECT_GE(at, reinterpret_cast<u64>(ram.base())) << "not below the first byte";
    EXPECT_LE(at + bytes, reinterpret_cast<u64>(ram.host(Gpa{31 * 64 * KiB})));
  }
}

TEST_F(TouchAhead, NothingBeyondTheEnd) {
  const GuestMemory ram = std::move(*GuestMemory::anonymous(16 * MiB));
  for (u64 chunk = 200; chunk < 256; chunk++) ram.expect(Gpa{chunk * 64 * KiB});
  for (const auto& [at, bytes] : g_asked)
    EXPECT_LE(at + bytes, reinterpret_cast<u64>(ram.base()) + ram.frames() * kPageSize);
}

TEST_F(TouchAhead, ServingGivesMemory) {
  auto* const at = static_cast<u8*>(map_huge(kHugePage));
  ::madvise(at, kHugePage, MADV_NOHUGEPAGE);
  serve_touch(reinterpret_cast<u64>(at), 128 * KiB);
  std::array<unsigned char, 33> in{};
  ASSERT_EQ(::mincore(at, 33 * kPageSize, in.data()), 0);
  EXPECT_TRUE(in[0] & 1);
  EXPECT_TRUE(in[31] & 1);
  EXPECT_FALSE(in[32] & 1);
  ::munmap(at, kHugePage);
}

TEST_F(TouchAhead, ASparePageIsTakenOnceAndMadeAgainOnRequest) {
  EXPECT_EQ(spare_huge(), nullptr);
  touch_ahead_spare();
  ASSERT_EQ(g_asked.size(), 1u);
  serve_touch(g_asked.begin()->first, g_asked.begin()->second);
  void* const page = spare_huge();
  ASSERT_NE(page, nullptr);
  EXPECT_EQ(spare_huge(), nullptr);
  ::munmap(page, kHugePage);
  serve_touch(g_asked.begin()->first, g_asked.begin()->second);
  g_asked.clear();
  GrowingMemory memory;
  EXPECT_NE(memory.allocate(100), nullptr);
  EXPECT_EQ(spare_huge(), nullptr) << "the allocation took it";
  EXPECT_EQ(g_asked.size(), 1u) << "and asked for another";
}

}  // namespace
}  // namespace trapline
