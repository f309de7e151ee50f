// What --verify holds the tables of translated code against.
#include "engine/verify/warrants.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace trapline::engine::verify {
namespace {

namespace perm = cpu::perm;
using testing::HasSubstr;

constexpr u64 kUser = 0x7f0012345000, kKernel = 0xffff888000123000;
constexpr u32 kUserPage = perm::user_read | perm::user_write | perm::kernel_ac_read | perm::kernel_ac_write;

struct NoMirror final : cpu::TlbMirror {
  void flushed_all() override {}
  void flushed_nonglobal() override {}
  void flushed_page(Gva) override {}
  void switched() override {}
  void dropped_write(Gpa) override {}
  void dropped_all_write() override {}
};

// Reaches what it is told to.
struct Engine final : Accelerator {
  std::vector<Reach> fresh, everything;
  ExitReason run(cpu::Vcpu&, u32, u64) override { return ExitReason::nothing; }
  bool translate(cpu::Vcpu&, u32, Gva, Gpa, const Profile&) override { return false; }
  void flush() override {}
  u32 threshold() const override { return 1; }
  void each_reach(bool all, const std::function<void(const Reach&)>& see) override {
    for (const Reach& r : all ? everything : fresh) see(r);
    fresh.clear();
  }
};

struct WarrantsTest : testing::Test {
  GuestMemory ram = std::move(*GuestMemory::anonymous(16 * MiB));
  NoMirror inner;
  cpu::Vcpu cpu;
  std::unique_ptr<Warrants> warrants;
  void SetUp() override {
    cpu.ram = &ram;
    cpu.ram_base = ram.base();
    cpu.tlb_mirror = &inner;
    cpu.cr0 = cpu::cr0::wp;
    warrants = std::make_unique<Warrants>(cpu);
  }
  void walked(u64 linear, u64 gpa, u32 perms, bool global = false, u8 page_shift = 12) {
    cpu::TlbEntry e;
    e.tag = Gva{linear};
    e.gpa = Gpa{gpa};
    e.slow_perm = static_cast<u16>(perms);
    e.global = global;
    e.page_shift = page_shift;
    warrants->filled(e);
  }
  Reach reach(u64 linear, u64 gpa, u32 need) const {
    return {Gva{linear}, Hva{reinterpret_cast<u64>(ram.base()) + gpa}, need};
  }
  bool may(u64 linear, u64 gpa, u32 need) const { return !warrants->objection(reach(linear, gpa, need)); }
};

TEST_F(WarrantsTest, WhatAWalkHasAllowedMayBeReachedAndNothingElse) {
  walked(kUser, 0x5000, kUserPage);
  EXPECT_TRUE(may(kUser, 0x5000, perm::user_write));
  EXPECT_TRUE(may(kUser, 0x5000, perm::kernel_ac_read));
  EXPECT_FALSE(may(kUser, 0x5000, perm::kernel_read)) << "SMAP";
  EXPECT_FALSE(may(kUser, 0x6000, perm::user_read)) << "another frame";
  EXPECT_FALSE(may(kUser + kPageSize, 0x6000, perm::user_read)) << "nobody walked there";
  walked(kUser + kPageSize, 0x6000, perm::user_read);
  EXPECT_FALSE(may(kUser + kPageSize, 0x6000, perm::user_write)) << "read-only";
  Reach over = reach(kUser, 0x5000, perm::user_read);
  over.over_end = true;
  EXPECT_NE(warrants->objection(over), nullptr);
}

TEST_F(WarrantsTest, TablesThatChangeWithoutAFlushMayStillBeReachedAsTheyWere) {
  walked(kUser, 0x5000, kUserPage);
  walked(kUser, 0x6000, kUserPage);
  EXPECT_TRUE(may(kUser, 0x5000, perm::user_read));
  EXPECT_TRUE(may(kUser, 0x6000, perm::user_read));
}

TEST_F(WarrantsTest, FlushesEndWhatTheyName) {
  walked(kKernel, 0x5000, perm::kernel_read, true);
  walked(kUser, 0x6000, kUserPage);
  cpu.tlb_mirror->flushed_context(0);
  EXPECT_TRUE(may(kKernel, 0x5000, perm::kernel_read)) << "global";
  EXPECT_FALSE(may(kUser, 0x6000, perm::user_read));
  walked(kUser, 0x6000, kUserPage);
  EXPECT_TRUE(may(kUser, 0x6000, perm::user_read));
  cpu.tlb_mirror->flushed_page(Gva{kUser + 0x123});
  EXPECT_FALSE(may(kUser, 0x6000, perm::user_read));
  cpu.tlb_mirror->flushed_page(Gva{kKernel});
  EXPECT_FALSE(may(kKernel, 0x5000, perm::kernel_read));
  walked(kKernel, 0x5000, perm::kernel_read, true);
  cpu.tlb_mirror->flushed_all();
  EXPECT_FALSE(may(kKernel, 0x5000, perm::kernel_read));
}

TEST_F(WarrantsTest, InvlpgEndsALargePageWhole) {
  struct {
    u8 shift;
    u64 inside, outside;
  } const cases[] = {{21, 0x1ff000, 0x200000}, {22, 0x3ff000, 0x400000}, {30, 0x3ffff000, 0x40000000}};
  const u64 first = 0xffff888000000000;
  for (const auto& c : cases) {
    for (const u64 at : {u64{0}, c.inside, c.outside}) walked(first + at, 0x5000, perm::kernel_read, true, c.shift);
    cpu.tlb_mirror->flushed_page(Gva{first + 0x3000});
    EXPECT_FALSE(may(first, 0x5000, perm::kernel_read)) << int{c.shift};
    EXPECT_FALSE(may(first + c.inside, 0x5000, perm::kernel_read)) << int{c.shift};
    EXPECT_TRUE(may(first + c.outside, 0x5000, perm::kernel_read)) << int{c.shift};
    cpu.tlb_mirror->flushed_all();
  }
}

TEST_F(WarrantsTest, EachPcidHasItsOwn) {
  cpu.cr4 = cpu::cr4::pcide;
  cpu.cr3 = 0x1001;
  walked(kUser, 0x5000, kUserPage);
  cpu.cr3 = 0x2002;
  EXPECT_FALSE(may(kUser, 0x5000, perm::user_read));
  cpu.tlb_mirror->flushed_context(2);
  cpu.cr3 = 0x1001;
  EXPECT_TRUE(may(kUser, 0x5000, perm::user_read));
  cpu.tlb_mirror->flushed_all_contexts();
  EXPECT_FALSE(may(kUser, 0x5000, perm::user_read));
}

TEST_F(WarrantsTest, WhatWpAllowedDoesNotOutliveIt) {
  cpu.cr0 = 0;
  walked(kKernel, 0x5000, perm::kernel_read | perm::kernel_write);
  EXPECT_TRUE(may(kKernel, 0x5000, perm::kernel_write));
  cpu.cr0 = cpu::cr0::wp;
  EXPECT_FALSE(may(kKernel, 0x5000, perm::kernel_write));
  EXPECT_TRUE(may(kKernel, 0x5000, perm::kernel_read));
}

TEST_F(WarrantsTest, WhatIsNewIsCheckedAtOnceAndAllOfItAfterAFlush) {
  Engine engine;
  walked(kUser, 0x5000, kUserPage);
  engine.fresh = {reach(kUser, 0x5000, perm::user_read)};
  EXPECT_EQ(warrants->check(engine), "");
  engine.fresh = {reach(kUser, 0x5000, perm::kernel_write)};
  EXPECT_THAT(
      warrants->check(engine),
      HasSubstr("@00007f0012345000 is reached by writes of mode kernel at gpa 5000, but the page tables do not"));
  engine.everything = {reach(kUser, 0x5000, perm::user_read)};
  cpu.tlb_mirror->switched();
  cpu.tlb_mirror->flushed_context(0);
  std::string report;
  for (unsigned i = 0; i < 100 && report.empty(); i++) report = warrants->check(engine);
  EXPECT_THAT(report, HasSubstr("flushed since"));
}

// The TLB keeps what other address spaces have of that page, and their tables are filled from it again.
TEST_F(WarrantsTest, APageFaultEndsThoseOfItsPcid) {
  cpu.cr4 |= cpu::cr4::pcide;
  cpu.cr3 = 3;
  walked(kUser, 0x5000, kUserPage);
  cpu.cr3 = 4;
  walked(kUser, 0x6000, kUserPage);
  warrants->faulted_page(Gva{kUser});
  EXPECT_FALSE(may(kUser, 0x6000, perm::user_read));
  cpu.cr3 = 3;
  EXPECT_TRUE(may(kUser, 0x5000, perm::user_read));
  EXPECT_FALSE(may(kUser, 0x6000, perm::user_read)) << "another's";
  warrants->flushed_page(Gva{kUser});
  EXPECT_FALSE(may(kUser, 0x5000, perm::user_read)) << "INVLPG ends them all";
}

}  // namespace
}  // namespace trapline::engine::verify
