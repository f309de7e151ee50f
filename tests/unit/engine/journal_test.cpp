// What --verify keeps of two runs over the same memory.
#include "engine/verify/journal.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

namespace trapline::engine::verify {
namespace {

using testing::HasSubstr;

constexpr u32 kWriteBits = cpu::perm::kernel_write | cpu::perm::kernel_ac_write | cpu::perm::user_write;

class JournalTest : public testing::Test {
 protected:
  JournalTest() : ram_{std::move(*GuestMemory::anonymous(16 * MiB))}, journal_{Journal::shared()} {}
  ~JournalTest() override { journal_->forget_entries(); }

  u8* at(u64 gpa) { return reinterpret_cast<u8*>(ram_.host(Gpa{gpa})); }
  // As the MMU: announced, then done.
  void write(u64 gpa, u8 value) {
    cpu::write_watch->writing(Gpa{gpa}.page(), entry_);
    entry_.perm |= kWriteBits;
    *at(gpa) = value;
  }
  void begin(bool wide = false) { journal_->begin(ram_, stop_, wide); }

  GuestMemory ram_;
  std::shared_ptr<Journal> journal_;
  cpu::TlbEntry entry_;
  std::atomic<u32> stop_{0};
};

TEST_F(JournalTest, TheSameWritesAreEqual) {
  *at(0x5008) = 7;
  begin();
  write(0x5000, 1), write(0x6fff, 2);
  journal_->turn_over();
  EXPECT_EQ(*at(0x5000), 0);  // the second run starts where the first did
  EXPECT_EQ(*at(0x6fff), 0);
  EXPECT_EQ(*at(0x5008), 7);
  write(0x6fff, 2), write(0x5000, 1);
  EXPECT_TRUE(journal_->equal());
  journal_->end();
  EXPECT_EQ(*at(0x5000), 1);
}

TEST_F(JournalTest, AWriteOfOneRunAloneIsADifferenceWhicheverRunItIs) {
  begin();
  write(0x5000, 1);
  journal_->turn_over();
  EXPECT_FALSE(journal_->equal());
  EXPECT_THAT(journal_->describe(), HasSubstr("gpa 5000"));
  begin();
  journal_->turn_over();
  write(0x7010, 1);
  EXPECT_FALSE(journal_->equal());
  EXPECT_THAT(journal_->describe(), HasSubstr("gpa 7010"));
  begin();  // of what is there already: no difference
  journal_->turn_over();
  write(0x7010, 1);
  EXPECT_TRUE(journal_->equal());
  journal_->end();
}

TEST_F(JournalTest, AWritePastThePageThatWasLookedUpIsSeen) {
  for (const u64 stray : {u64{0x4fff}, u64{0x6000}}) {
    begin(true);
    write(0x5000, 1);
    *at(stray) = 1;  // not announced
    journal_->turn_over();
    EXPECT_EQ(*at(stray), 0);
    write(0x5000, 1);
    EXPECT_FALSE(journal_->equal());
    EXPECT_THAT(journal_->describe(), HasSubstr(stray < 0x5000 ? "gpa 4ff8" : "gpa 6000"));
    journal_->undo();
    journal_->end();
  }
  begin(true);  // at the end of RAM there is nothing beside
  write(16 * MiB - 1, 1);
  journal_->turn_over();
  write(16 * MiB - 1, 1);
  EXPECT_TRUE(journal_->equal());
  journal_->end();
}

TEST_F(JournalTest, UndoPutsBothRunsBack) {
  *at(0x5000) = 9, *at(0x5fff) = 8, *at(0x8000) = 7;
  begin();
  write(0x5000, 1);
  journal_->turn_over();
  write(0x5fff, 2), write(0x8000, 3);
  journal_->undo();
  journal_->end();
  EXPECT_EQ(*at(0x5000), 9);
  EXPECT_EQ(*at(0x5fff), 8);
  EXPECT_EQ(*at(0x8000), 7);
}

TEST_F(JournalTest, PermissionToWriteEndsWithTheRun) {
  begin();
  write(0x5000, 1);
  journal_->turn_over();
  EXPECT_EQ(entry_.perm & kWriteBits, 0u);
  write(0x5000, 1);
  journal_->end();
  write(0x9000, 1);  // between stretches nothing is kept
  begin();
  EXPECT_EQ(entry_.perm & kWriteBits, 0u);
  journal_->turn_over();
  EXPECT_TRUE(journal_->equal());
  journal_->end();
}

TEST_F(JournalTest, UsedBitsStayAndAreNoDifference) {
  const u64 table = 0x5000, value = 0x123007;
  begin();
  write(table + 8, 1);  // the page is kept from here on
  std::memcpy(at(table), &value, 8);
  const u64 used = value | 0x60;
  std::memcpy(at(table), &used, 8);
  cpu::write_watch->marked(at(table), 8, 0x60);
  journal_->turn_over();
  EXPECT_TRUE(journal_->tables_marked());
  write(table + 8, 1);  // the second finds its translation in the TLB: no walk
  std::memcpy(at(table), &value, 8);
  EXPECT_TRUE(journal_->equal());
  journal_->end();
  u64 now = 0;
  std::memcpy(&now, at(table), 8);
  EXPECT_EQ(now, used);
}

TEST_F(JournalTest, AnotherEntryIsNotMarked) {
  const u64 table = 0x5000, first = 0x123007, second = 0x456007;
  std::memcpy(at(table), &first, 8);
  begin();
  write(table + 8, 1);
  const u64 used = first | 0x20;
  std::memcpy(at(table), &used, 8);
  cpu::write_watch->marked(at(table), 8, 0x20);
  std::memcpy(at(table), &second, 8);  // the guest puts another one there
  journal_->turn_over();
  write(table + 8, 1);
  std::memcpy(at(table), &second, 8);
  EXPECT_TRUE(journal_->equal());
  journal_->end();
  u64 now = 0;
  std::memcpy(&now, at(table), 8);
  EXPECT_EQ(now, second);
}

TEST_F(JournalTest, DevicesAreNotTouched) {
  EXPECT_FALSE(cpu::write_watch->device());  // between stretches they are
  begin();
  EXPECT_FALSE(journal_->touched_device());
  EXPECT_TRUE(cpu::write_watch->device());
  EXPECT_TRUE(journal_->touched_device());
  journal_->end();
}

TEST_F(JournalTest, TooManyPagesAskForAStop) {
  begin();
  for (u64 page = 0; page < Journal::kMost; page++) write(page * kPageSize % (640 * KiB) + page / 160 * 2 * MiB, 1);
  EXPECT_FALSE(journal_->too_many());
  EXPECT_EQ(stop_.load(), 0u);
  write(15 * MiB, 1);
  EXPECT_TRUE(journal_->too_many());
  EXPECT_NE(stop_.load(), 0u);
  journal_->turn_over();
  journal_->undo();
  journal_->end();
  EXPECT_EQ(*at(15 * MiB), 0);
}

}  // namespace
}  // namespace trapline::engine::verify
