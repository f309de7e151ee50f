#include "engine/translate/views.h"

#include <gtest/gtest.h>

#include <array>
#include <fstream>
#include <string>

namespace trapline::engine::translate::test {
namespace {

constexpr u64 kUser = 0x7f0012345000, kKernel = 0xffff888000123000, kAddend = 0x1000'0000'1000;

struct ViewsTest : testing::Test {
  GuestMemory ram = std::move(*GuestMemory::anonymous(64 * MiB));
  cpu::Vcpu cpu;
  std::unique_ptr<Views> views;
  void SetUp() override {
#ifdef __SANITIZE_ADDRESS__
    GTEST_SKIP() << "no room for the tables beside AddressSanitizer's shadow memory";
#endif
    cpu.ram = &ram;
    views = Views::make(cpu, nullptr);
    ASSERT_TRUE(views);
  }
  // What translated code would find for a byte there.
  u64 found(View v, u64 linear, bool write, unsigned size = 1) const {
    return *reinterpret_cast<const u64*>(views->base(v) + Views::slot_offset(Gva{linear}, size, write));
  }
  void fill(View v, u64 linear, u64 gpa, u8 shift = 12, bool global = false) {
    views->touch(v, Gva{linear});
    views->fill(v, Gva{linear}, Gpa{gpa}, kAddend + gpa - (linear & kPageMask), global, shift, true, true);
  }
};

TEST_F(ViewsTest, AnEntryIsFoundByItsPageViewAndKind) {
  fill(View::kernel, kKernel, 0x5000);
  EXPECT_EQ(kKernel + found(View::kernel, kKernel + 0xfff, false), kAddend + 0x5000);
  EXPECT_NE(found(View::kernel, kKernel, true), 0u);
  EXPECT_EQ(found(View::kernel_ac, kKernel, false), 0u);
  EXPECT_EQ(found(View::user, kKernel, true), 0u);
  EXPECT_EQ(found(View::kernel, kKernel + kPageSize, false), 0u);
  EXPECT_EQ(found(View::kernel, kKernel + 0xffd, false, 4), 0u) << "it goes on in the next page";
}

TEST_F(ViewsTest, AnEntryThatNoFlushWouldFindIsNotMade) {
  const auto fill_unknown = [&] { views->fill(View::user, Gva{kUser}, Gpa{0x5000}, kAddend, false, 12, true, true); };
  EXPECT_DEATH(fill_unknown(), "where no flush would look");
  views->touch(View::kernel, Gva{kUser});
  EXPECT_DEATH(fill_unknown(), "where no flush would look") << "only another view's";
}

TEST_F(ViewsTest, InvlpgEndsOnePageInEveryView) {
  fill(View::user, kUser, 0x5000);
  fill(View::kernel_ac, kUser, 0x5000);
  fill(View::user, kUser + kPageSize, 0x6000);
  views->flushed_page(Gva{kUser + 5});
  EXPECT_EQ(found(View::user, kUser, false), 0u);
  EXPECT_EQ(found(View::kernel_ac, kUser, true), 0u);
  EXPECT_NE(found(View::user, kUser + kPageSize, false), 0u);
}

TEST_F(ViewsTest, InvlpgEndsTheLargePageThatHoldsTheAddress) {
  struct {
    u8 shift;
    u64 inside, outside;
  } const cases[] = {{21, 0x1ff000, 0x200000}, {22, 0x3ff000, 0x400000}, {30, 0x3ffff000, 0x40000000}};
  for (const auto& c : cases) {
    const u64 first = 0xffff888000000000;
    fill(View::kernel, first, 0x5000, c.shift);
    fill(View::kernel, first + c.inside, 0x6000, c.shift);
    fill(View::kernel, first + c.outside, 0x7000, c.shift);
    views->flushed_page(Gva{first + 0x3000});
    EXPECT_EQ(found(View::kernel, first, false), 0u) << int{c.shift};
    EXPECT_EQ(found(View::kernel, first + c.inside, true), 0u) << int{c.shift};
    EXPECT_NE(found(View::kernel, first + c.outside, false), 0u) << int{c.shift};
    views->flushed_all();
  }
}

TEST_F(ViewsTest, ASwitchLeavesGlobalPagesOfTheUpperHalf) {
  fill(View::kernel, kKernel, 0x5000, 12, true);
  fill(View::kernel, kKernel + kPageSize, 0x6000);
  fill(View::user, kUser, 0x7000, 12, true);
  views->switched();
  EXPECT_NE(found(View::kernel, kKernel, false), 0u);
  EXPECT_EQ(found(View::kernel, kKernel + kPageSize, false), 0u);
  EXPECT_EQ(found(View::user, kUser, false), 0u);
  views->flushed_all();
  EXPECT_EQ(found(View::kernel, kKernel, false), 0u);
}

TEST_F(ViewsTest, AFrameLosesAllItsWriters) {
  const u64 gpa = 0x5000;
  // One, two, and more places than are kept.
  for (unsigned places = 1; places <= 5; places++) {
    for (unsigned i = 0; i < places; i++) fill(View::user, kUser + i * MiB, gpa);
    fill(View::user, kUser + 64 * MiB, 0x9000);
    views->dropped_write(Gpa{gpa});
    for (unsigned i = 0; i < places; i++) {
      EXPECT_EQ(found(View::user, kUser + i * MiB, true), 0u) << i << " of " << places;
      EXPECT_NE(found(View::user, kUser + i * MiB, false), 0u) << i << " of " << places;
    }
    EXPECT_NE(found(View::user, kUser + 64 * MiB, true), 0u);
  }
  // Places that are another frame's by now are forgotten, not taken for more than two.
  for (unsigned i = 0; i < 20; i++) {
    fill(View::user, kUser + i * MiB, gpa);
    views->flushed_page(Gva{kUser + i * MiB});
  }
  fill(View::kernel, kKernel, gpa);
  views->dropped_write(Gpa{gpa});
  EXPECT_EQ(found(View::kernel, kKernel, true), 0u);
}

u64 resident_kib(const char* field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.rfind(field, 0) == 0) return std::stoull(line.substr(std::string{field}.size() + 1));
  return 0;
}

// A guest that looks up a place in every MiB, and fills each.
TEST_F(ViewsTest, SparseAddressesCostABoundedAmount) {
  const u64 before = resident_kib("VmRSS") + resident_kib("VmPTE");
  u64 most = 0;
  for (u64 i = 0; i < 2 * TablePages::kMost + 100; i++) {
    const u64 linear = 0x100000000000 + i * 7 * MiB;
    (void)found(View::user, linear, i & 1);
    fill(View::user, linear, (i * kPageSize) % (32 * MiB));
    EXPECT_LE(views->pages_touched(), TablePages::kMost);
    if (i % 1024 == 0) most = std::max(most, resident_kib("VmRSS") + resident_kib("VmPTE"));
  }
  EXPECT_EQ(views->purges, 2u);
  // 64 MiB of tables, the host's page tables for them, what describes them.
  EXPECT_LT(most - before, 160 * 1024u);
  EXPECT_EQ(found(View::user, 0x100000000000, false), 0u) << "given back, and so forgotten";
}

// INVLPG of addresses that nothing was looked up at makes no memory.
TEST_F(ViewsTest, InvlpgTouchesNothingNew) {
  const u64 before = resident_kib("VmRSS") + resident_kib("VmPTE");
  for (u64 i = 0; i < 20000; i++) views->flushed_page(Gva{i * 1024 * MiB % (u64{1} << 46)});
  EXPECT_LT(resident_kib("VmRSS") + resident_kib("VmPTE"), before + 4096);
}

TEST_F(ViewsTest, ABlockThatIsTouchedAllOverIsMadeAtOnce) {
  const u64 block = 0x100000000000;
  for (u64 i = 0; i < TablePages::kMany - 1; i++) fill(View::user, block + i * 9 * MiB, 0x5000);
  EXPECT_EQ(views->pages_touched(), TablePages::kMany - 1);
  fill(View::user, block + 60 * MiB, 0x5000);
  EXPECT_EQ(views->pages_touched(), TablePages::kBlock / MiB);
  fill(View::user, block + 61 * MiB, 0x6000);
  EXPECT_EQ(views->pages_touched(), TablePages::kBlock / MiB);
  views->flushed_page(Gva{block + 61 * MiB});
  EXPECT_EQ(found(View::user, block + 61 * MiB, false), 0u);
  EXPECT_NE(found(View::user, block + 60 * MiB, false), 0u);
}

TEST_F(ViewsTest, AJumpThatIsDisplacedIsKept) {
  const u64 other = kUser + JumpCache::kSlots;  // the same slot
  views->jumps().put(View::user, Gva{kUser}, 3, 111, false);
  views->jumps().put(View::user, Gva{other}, 3, 222, false);
  EXPECT_EQ(views->jumps().find(View::user, Gva{kUser}, 3), 111u);
  EXPECT_EQ(views->jumps().find(View::user, Gva{other}, 3), 222u);
  EXPECT_EQ(views->jumps().find(View::user, Gva{kUser}, 4), 0u);
  EXPECT_EQ(views->jumps().find(View::kernel, Gva{kUser}, 3), 0u);
  EXPECT_EQ(views->jumps().find(View::user, Gva{kUser + 1}, 2), 0u) << "another address and mode of the same sum";
  EXPECT_EQ(views->jumps().find(View::user, Gva{kUser - 1}, 4), 0u);
  views->jumps().forget(View::user, Gva{kUser}, 111);
  EXPECT_EQ(views->jumps().find(View::user, Gva{kUser}, 3), 0u);
  EXPECT_EQ(views->jumps().find(View::user, Gva{other}, 3), 222u);

  views->jumps().put(View::user, Gva{kUser}, 3, 111, false);
  EXPECT_EQ(views->jumps().find(View::user, Gva{other}, 3), 222u) << "displaced in its turn";
  views->flushed_page(Gva{other});
  EXPECT_EQ(views->jumps().find(View::user, Gva{other}, 3), 0u);
  views->jumps().put(View::user, Gva{kUser}, 3, 111, true);
  views->jumps().put(View::user, Gva{other}, 3, 222, true);
  views->jumps().forget_all();
  EXPECT_EQ(views->jumps().find(View::user, Gva{kUser}, 3), 0u);
  EXPECT_EQ(views->jumps().find(View::user, Gva{other}, 3), 0u);
}

TEST_F(ViewsTest, JumpsAreForgottenByPage) {
  views->jumps().put(View::user, Gva{kUser}, 0, 0x1111, false);
  views->jumps().put(View::user, Gva{kUser + 0x10000}, 0, 0x2222, false);
  views->jumps().put(View::kernel, Gva{kKernel}, 0, 0x3333, true);
  views->flushed_page(Gva{kUser});
  EXPECT_EQ(views->jumps().find(View::user, Gva{kUser}, 0), 0u);
  EXPECT_EQ(views->jumps().find(View::user, Gva{kUser + 0x10000}, 0), 0x2222u);
  views->switched();
  EXPECT_EQ(views->jumps().find(View::user, Gva{kUser + 0x10000}, 0), 0u);
  EXPECT_EQ(views->jumps().find(View::kernel, Gva{kKernel}, 0), 0x3333u);
  views->jumps().forget(View::kernel, Gva{kKernel}, 0x4444);
  EXPECT_EQ(views->jumps().find(View::kernel, Gva{kKernel}, 0), 0x3333u) << "it leads elsewhere";
  views->jumps().forget(View::kernel, Gva{kKernel}, 0x3333);
  EXPECT_EQ(views->jumps().find(View::kernel, Gva{kKernel}, 0), 0u);
}

// Code of two modes at one address, and no sum of an address and a tag that is another's.
TEST_F(ViewsTest, AJumpIsLostWithWhatItWasPutAsLast) {
  JumpCache& jumps = views->jumps();
  for (const bool last : {false, true})
    for (const bool first : {false, true}) {
      jumps.put(View::kernel, Gva{kKernel}, 1, 77, first);
      jumps.put(View::kernel, Gva{kKernel}, 1, 77, last);
      jumps.put(View::kernel, Gva{kKernel}, 1, 77, last);  // which is there already
      EXPECT_EQ(jumps.find(View::kernel, Gva{kKernel}, 1), 77u);
      jumps.forget_unstable();
      if (!last) {
        EXPECT_EQ(jumps.find(View::kernel, Gva{kKernel}, 1), 0u) << first;
      } else if (first) {
        EXPECT_EQ(jumps.find(View::kernel, Gva{kKernel}, 1), 77u);
      }
      jumps.forget_all();
      EXPECT_EQ(jumps.find(View::kernel, Gva{kKernel}, 1), 0u) << first << last;
    }
}

TEST_F(ViewsTest, ModesShareAJumpCache) {
  views->jumps().put(View::user, Gva{kUser}, 3, 0x1111, false);
  EXPECT_EQ(views->jumps().find(View::user, Gva{kUser}, 3), 0x1111u);
  EXPECT_EQ(views->jumps().find(View::user, Gva{kUser}, 4), 0u);
  EXPECT_EQ(views->jumps().find(View::user, Gva{kUser + 1}, 2), 0u);
  EXPECT_EQ(views->jumps().find(View::user, Gva{kUser + JumpCache::kSlots}, 3), 0u);
  EXPECT_EQ(views->jumps().find(View::user, Gva{kUser}, JumpCache::kTags), 0u) << "a mode without blocks";
}

// Translated code adds what a slot has, the address and the tag, and jumps if that is 0.
TEST_F(ViewsTest, NoAddressAndTagFindAnEmptySlot) {
  const auto* slots = reinterpret_cast<const hostcode::JumpSlot*>(views->base(View::user) - JumpCache::kBytes);
  for (u64 tag = 0; tag < JumpCache::kTags; tag++)
    for (u64 i = 0; i < JumpCache::kSlots; i++) {
      const u64 found = 0 - slots[i].negated - tag;
      ASSERT_NE(found & JumpCache::kMask, i) << "slot " << i << ", tag " << tag;
    }
}

// A block that begins in the last bytes of a page may need the next one.
TEST_F(ViewsTest, JumpsOverTheEndOfAPageAreForgottenWithTheSecond) {
  views->jumps().put(View::user, Gva{kUser + 0xff2}, 0, 0x1111, false);
  views->jumps().put(View::user, Gva{kUser + 0x800}, 0, 0x2222, false);
  views->flushed_page(Gva{kUser + kPageSize});
  EXPECT_EQ(views->jumps().find(View::user, Gva{kUser + 0xff2}, 0), 0u);
  EXPECT_EQ(views->jumps().find(View::user, Gva{kUser + 0x800}, 0), 0x2222u);
}

TEST(TablePages, CountEachViewOfAMibOnce) {
  TablePages pages;
  EXPECT_TRUE(pages.touch(Gva{kUser}, 0));
  EXPECT_TRUE(pages.touch(Gva{kUser + 5}, 0));
  EXPECT_TRUE(pages.touch(Gva{kUser}, 2));
  EXPECT_EQ(pages.count(), 2u);
  EXPECT_EQ(pages.touched(Gva{kUser}), 5);
  EXPECT_EQ(pages.touched(Gva{kUser + MiB}), 0);
  u64 n = pages.count();
  for (u64 i = 1; pages.touch(Gva{kUser + i * MiB}, 1); i++) n++;
  EXPECT_EQ(n, TablePages::kMost);
  EXPECT_TRUE(pages.touch(Gva{kUser}, 0)) << "it is there already";
  pages.clear();
  EXPECT_EQ(pages.count(), 0u);
  EXPECT_EQ(pages.touched(Gva{kUser}), 0);
}

}  // namespace
}  // namespace trapline::engine::translate::test
