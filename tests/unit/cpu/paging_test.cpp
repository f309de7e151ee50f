#include "cpu/mmu.h"

#include <gtest/gtest.h>

#include <array>

#include "bare_vm.h"

namespace trapline::cpu::test {
namespace {

constexpr u64 kUser = 0x400000, kKernel = 0xffffffff80000000, kPage = 0x200000;
constexpr u64 kLapicless = 0xd0000000;  // in the PCI hole

struct LongModePaging : testing::Test {
  BareVm vm;
  void SetUp() override { vm.enter_long64(); }
};

TEST_F(LongModePaging, ReadsThroughFourLevelsAndSetsAccessedBits) {
  u64& e = vm.map64(kUser, kPage, pte::p | pte::w | pte::u);
  vm.at<u32>(kPage + 8) = 0x12345678;
  u32 v = 0;
  ASSERT_TRUE(vm.load(kUser + 8, &v));
  EXPECT_EQ(v, 0x12345678u);
  EXPECT_EQ(e, kPage | pte::p | pte::w | pte::u | pte::a);
  for (int level = 1; level < 4; level++) EXPECT_TRUE(vm.at<u64>(vm.entry64(kUser, level)) & pte::a) << level;
  EXPECT_FALSE(vm.at<u64>(vm.entry64(kUser, 1)) & pte::d);
}

TEST_F(LongModePaging, FirstWriteAfterReadSetsDirty) {
  u64& e = vm.map64(kUser, kPage, pte::p | pte::w | pte::u);
  EXPECT_EQ(vm.try_read(kUser), "ok");
  EXPECT_FALSE(e & pte::d);
  EXPECT_EQ(vm.try_write(kUser), "ok");
  EXPECT_TRUE(e & pte::d);
  EXPECT_EQ(vm.at<u8>(kPage), 0x5a);
}

TEST_F(LongModePaging, FaultingAccessLeavesTheEntriesAlone) {
  u64& e = vm.map64(kUser, kPage, pte::p | pte::u);
  vm.set_cpl(3);
  EXPECT_EQ(vm.try_write(kUser), "#PF(0x7) at 0x400000");
  EXPECT_EQ(e, kPage | pte::p | pte::u);
}

// The page is another one meanwhile, and nobody has said so: a read still finds the old one, until an access faults.
TEST_F(LongModePaging, APageFaultEndsTheEntriesOfItsPage) {
  for (const u64 address : {kUser, kKernel}) {
    u64& e = vm.map64(address, kPage, pte::p | pte::u);
    vm.at<u32>(kPage) = 1, vm.at<u32>(kPage + kPageSize) = 2;
    u32 v = 0;
    ASSERT_TRUE(vm.load(address, &v));
    e = (kPage + kPageSize) | pte::p | pte::u;
    ASSERT_TRUE(vm.load(address, &v));
    EXPECT_EQ(v, 1u) << "there is no TLB to test";
    EXPECT_NE(vm.try_write(address), "ok");
    ASSERT_TRUE(vm.load(address, &v));
    EXPECT_EQ(v, 2u);
    e |= pte::w;  // more rights than an entry has are seen at once
    EXPECT_EQ(vm.try_write(address), "ok");
  }
}

TEST_F(LongModePaging, ErrorCodesByCause) {
  vm.map64(kUser, kPage, pte::p | pte::w | pte::u | pte::nx);
  vm.map64(kKernel, kPage, pte::p | pte::w);
  EXPECT_EQ(vm.try_read(0x7000), "#PF(0x0) at 0x7000");
  EXPECT_EQ(vm.try_write(0x7001), "#PF(0x2) at 0x7001");
  EXPECT_EQ(vm.try_fetch(0x7000), "#PF(0x10) at 0x7000");
  vm.set_cpl(3);
  EXPECT_EQ(vm.try_read(0x7000), "#PF(0x4) at 0x7000");
  EXPECT_EQ(vm.try_write(kKernel), "#PF(0x7) at 0xffffffff80000000");
  EXPECT_EQ(vm.try_read(kKernel + 5), "#PF(0x5) at 0xffffffff80000005");
  EXPECT_EQ(vm.try_fetch(kUser), "#PF(0x15) at 0x400000");
  vm.cpu.efer &= ~efer::nxe;  // bit 63 is now reserved, and fetches are not told apart
  tlb_flush_all(vm.cpu);
  EXPECT_EQ(vm.try_fetch(kUser), "#PF(0xd) at 0x400000");
}

TEST_F(LongModePaging, ReservedBitsFault) {
  vm.map64(kUser, kPage | u64{1} << 50, pte::p | pte::w | pte::u);
  EXPECT_EQ(vm.try_read(kUser), "#PF(0x9) at 0x400000");
  vm.map64(0x600000, 0x200000 | 1u << 14, pte::p | pte::w, 1);
  EXPECT_EQ(vm.try_read(0x600000), "#PF(0x9) at 0x600000");
  vm.at<u64>(vm.entry64(u64{1} << 39, 3)) = kPage | pte::p | pte::ps;
  EXPECT_EQ(vm.try_write(u64{1} << 39), "#PF(0xb) at 0x8000000000");
}

TEST_F(LongModePaging, LargePages) {
  vm.map64(0x600000, 0x400000, pte::p | pte::w, 1);
  vm.at<u8>(0x400000 + 0x12345) = 77;
  u8 b = 0;
  ASSERT_TRUE(vm.load<u8>(0x600000 + 0x12345, &b));
  EXPECT_EQ(b, 77);
  vm.map64(u64{2} << 30, 0, pte::p | pte::w, 2);
  ASSERT_TRUE(vm.load<u8>((u64{2} << 30) + 0x412345, &b));
  EXPECT_EQ(b, 77);
}

TEST_F(LongModePaging, InvlpgDropsEveryFragmentOfALargePage) {
  u64& e = vm.map64(0x600000, 0x400000, pte::p | pte::w, 1);
  for (u64 a = 0; a < 0x200000; a += 0x10000) ASSERT_EQ(vm.try_read(0x600000 + a), "ok");
  e = 0;
  EXPECT_EQ(vm.try_read(0x610000), "ok") << "an entry lives until it is invalidated";
  tlb_flush_page(vm.cpu, Gva{0x7ff000});
  for (u64 a = 0; a < 0x200000; a += 0x10000) EXPECT_NE(vm.try_read(0x600000 + a), "ok") << a;
}

TEST_F(LongModePaging, WriteProtectAppliesToTheKernelOnlyWithWp) {
  vm.map64(kUser, kPage, pte::p | pte::u);
  EXPECT_EQ(vm.try_write(kUser), "#PF(0x3) at 0x400000");
  ASSERT_TRUE(write_cr0(vm.cpu, vm.cpu.cr0 & ~cr0::wp));
  EXPECT_EQ(vm.try_write(kUser), "ok");
  vm.set_cpl(3);
  EXPECT_EQ(vm.try_write(kUser), "#PF(0x7) at 0x400000");
  vm.set_cpl(0);
  ASSERT_TRUE(write_cr0(vm.cpu, vm.cpu.cr0 | cr0::wp));
  EXPECT_EQ(vm.try_write(kUser), "#PF(0x3) at 0x400000");
}

TEST_F(LongModePaging, SmepForbidsFetchingUserPages) {
  vm.map64(kUser, kPage, pte::p | pte::u);
  EXPECT_EQ(vm.try_fetch(kUser), "ok");
  ASSERT_TRUE(write_cr4(vm.cpu, vm.cpu.cr4 | cr4::smep));
  EXPECT_EQ(vm.try_fetch(kUser), "#PF(0x11) at 0x400000");
  vm.set_cpl(3);
  EXPECT_EQ(vm.try_fetch(kUser), "ok");
}

TEST_F(LongModePaging, SmapYieldsToAcButNotForImplicitAccesses) {
  vm.map64(kUser, kPage, pte::p | pte::w | pte::u);
  vm.map64(kKernel, kPage, pte::p | pte::w);
  ASSERT_TRUE(write_cr4(vm.cpu, vm.cpu.cr4 | cr4::smap));
  EXPECT_EQ(vm.try_read(kUser), "#PF(0x1) at 0x400000");
  EXPECT_EQ(vm.try_write(kUser), "#PF(0x3) at 0x400000");
  ASSERT_EQ(vm.run({0x0f, 0x01, 0xcb}), "ok");  // stac
  EXPECT_EQ(vm.try_write(kUser), "ok");
  u8 b;
  EXPECT_EQ(vm.outcome(read_system(vm.cpu, Gva{kUser}, &b, 1)), "#PF(0x1) at 0x400000");
  ASSERT_EQ(vm.run({0x0f, 0x01, 0xca}), "ok");  // clac
  EXPECT_EQ(vm.try_read(kUser), "#PF(0x1) at 0x400000");
  vm.set_cpl(3);
  EXPECT_EQ(vm.try_read(kUser), "ok");
  EXPECT_EQ(vm.outcome(read_system(vm.cpu, Gva{kKernel}, &b, 1)), "ok")
      << "descriptor loads at CPL 3 are the supervisor's";
}

TEST_F(LongModePaging, NonCanonicalAddresses) {
  u64 v;
  EXPECT_EQ(vm.outcome(vm.load<u64>(0x800000000000, &v)), "#GP(0x0)");
  EXPECT_EQ(vm.outcome(vm.load<u64>(0x800000000000, &v, Seg::ss)), "#SS(0x0)");
  vm.map64(0x7ffffffff000, kPage, pte::p | pte::w);
  EXPECT_EQ(vm.outcome(vm.load<u64>(0x7ffffffffffc, &v)), "#GP(0x0)");
  EXPECT_EQ(vm.try_fetch(0x8000000000000000), "#GP(0x0)");
}

TEST_F(LongModePaging, AnAccessAcrossPagesIsCheckedWholeBeforeItWrites) {
  vm.map64(kUser, kPage, pte::p | pte::w | pte::u);
  vm.at<u32>(kPage + 0xffc) = 0;
  EXPECT_EQ(vm.outcome(vm.store<u64>(kUser + 0xffc, ~u64{0})), "#PF(0x2) at 0x401000");
  EXPECT_EQ(vm.at<u32>(kPage + 0xffc), 0u);
  vm.map64(kUser + 0x1000, 0x300000, pte::p | pte::w | pte::u);
  EXPECT_TRUE(vm.store<u64>(kUser + 0xffc, 0x1122334455667788));
  EXPECT_EQ(vm.at<u32>(kPage + 0xffc), 0x55667788u);
  EXPECT_EQ(vm.at<u32>(0x300000), 0x11223344u);
  std::array<u8, 64> wide;
  EXPECT_TRUE(vm.load(kUser + 0xfe0, &wide));
  EXPECT_EQ(wide[28], 0x88);
  EXPECT_EQ(wide[35], 0x11);
}

TEST_F(LongModePaging, TheTopOfTheAddressSpaceWraps) {
  vm.map64(0xfffffffffffff000, kPage, pte::p | pte::w);
  vm.map64(0, 0x300000, pte::p | pte::w);
  EXPECT_TRUE(vm.store<u32>(0xfffffffffffffffe, 0xaabbccdd));
  EXPECT_EQ(vm.at<u16>(kPage + 0xffe), 0xccdd);
  EXPECT_EQ(vm.at<u16>(0x300000), 0xaabb);
}

TEST_F(LongModePaging, GlobalPagesSurviveMovToCr3) {
  u64& g = vm.map64(kKernel, kPage, pte::p | pte::w | pte::g);
  u64& n = vm.map64(kKernel + 0x1000, kPage, pte::p | pte::w);
  u64& low = vm.map64(kUser, kPage, pte::p | pte::w | pte::g);
  for (u64 a : {kKernel, kKernel + 0x1000, kUser}) ASSERT_EQ(vm.try_read(a), "ok");
  g = n = low = 0;
  ASSERT_TRUE(write_cr3(vm.cpu, vm.cpu.cr3));
  EXPECT_EQ(vm.try_read(kKernel), "ok");
  EXPECT_EQ(vm.try_read(kUser), "ok");
  EXPECT_EQ(vm.try_read(kKernel + 0x1000), "#PF(0x0) at 0xffffffff80001000");
  ASSERT_TRUE(write_cr4(vm.cpu, vm.cpu.cr4 & ~cr4::pge));
  EXPECT_EQ(vm.try_read(kKernel), "#PF(0x0) at 0xffffffff80000000");
}

TEST_F(LongModePaging, ManyEntriesAreFlushedToo) {
  for (u64 i = 0; i < 600; i++) vm.map64(kUser + i * kPageSize, kPage, pte::p | pte::w | (i % 3 ? 0 : pte::g));
  for (u64 i = 0; i < 600; i++) ASSERT_EQ(vm.try_read(kUser + i * kPageSize), "ok");
  for (u64 i = 0; i < 600; i++) vm.at<u64>(vm.entry64(kUser + i * kPageSize, 0)) = 0;
  ASSERT_TRUE(write_cr3(vm.cpu, vm.cpu.cr3));
  for (u64 i = 0; i < 600; i++) EXPECT_EQ(vm.try_read(kUser + i * kPageSize) == "ok", i % 3 == 0) << i;
}

TEST_F(LongModePaging, PcidsKeepTheirEntriesApart) {
  const u64 first = vm.cpu.cr3;
  vm.map64(kUser, kPage, pte::p | pte::w);
  ASSERT_TRUE(write_cr4(vm.cpu, vm.cpu.cr4 | cr4::pcide));
  vm.at<u8>(kPage) = 1, vm.at<u8>(0x300000) = 2;
  const u64 second = vm.new_table();
  vm.cpu.cr3 = second;
  u64& e2 = vm.map64(kUser, 0x300000, pte::p | pte::w);
  vm.cpu.cr3 = first;

  const auto value = [&] {
    u8 b = 0;
    return vm.load(kUser, &b) ? b : 255;
  };
  constexpr u64 keep = u64{1} << 63;
  ASSERT_TRUE(write_cr3(vm.cpu, first | 1));
  EXPECT_EQ(value(), 1);
  ASSERT_TRUE(write_cr3(vm.cpu, second | 2));
  EXPECT_EQ(value(), 2);
  EXPECT_EQ(vm.cpu.cr3, second | 2);
  e2 = 0;
  ASSERT_TRUE(write_cr3(vm.cpu, first | 1 | keep));
  EXPECT_EQ(vm.cpu.cr3, first | 1) << "bit 63 is not kept";
  EXPECT_EQ(value(), 1);
  ASSERT_TRUE(write_cr3(vm.cpu, second | 2 | keep));
  EXPECT_EQ(value(), 2) << "kept entries may outlive the tables";
  ASSERT_TRUE(write_cr3(vm.cpu, second | 2));
  EXPECT_EQ(value(), 255);
  // More PCIDs than there are arrays: each sees its own tables.
  for (u64 pcid = 3; pcid < 30; pcid++) {
    ASSERT_TRUE(write_cr3(vm.cpu, first | pcid | keep));
    EXPECT_EQ(value(), 1) << pcid;
  }
  ASSERT_TRUE(write_cr3(vm.cpu, second | 2 | keep));
  EXPECT_EQ(value(), 255);
}

TEST_F(LongModePaging, NonGlobalKernelEntriesDoNotLeakIntoAnotherPcid) {
  ASSERT_TRUE(write_cr4(vm.cpu, vm.cpu.cr4 | cr4::pcide));
  const u64 first = vm.cpu.cr3;
  vm.map64(kKernel, kPage, pte::p | pte::w);
  ASSERT_EQ(vm.try_read(kKernel), "ok");
  ASSERT_TRUE(write_cr3(vm.cpu, vm.new_table() | 5 | u64{1} << 63));
  EXPECT_EQ(vm.try_read(kKernel), "#PF(0x0) at 0xffffffff80000000");
  ASSERT_TRUE(write_cr3(vm.cpu, first | u64{1} << 63));
  EXPECT_EQ(vm.try_read(kKernel), "ok");
}

TEST_F(LongModePaging, InvpcidTypes) {
  ASSERT_TRUE(write_cr4(vm.cpu, vm.cpu.cr4 | cr4::pcide));
  vm.map64(0x10000, 0x10000, pte::p | pte::w);  // the descriptor
  u64& e = vm.map64(kUser, kPage, pte::p | pte::w);
  u64& g = vm.map64(kKernel, kPage, pte::p | pte::w | pte::g);
  const auto refill = [&] {
    e = kPage | pte::p | pte::w, g = kPage | pte::p | pte::w | pte::g;
    tlb_flush_all(vm.cpu);
    ASSERT_EQ(vm.try_read(kUser), "ok");
    ASSERT_EQ(vm.try_read(kKernel), "ok");
    e = g = 0;
  };
  const auto invpcid = [&](u64 type, u64 pcid, u64 linear) {
    vm.at<u64>(0x10000) = pcid, vm.at<u64>(0x10008) = linear;
    vm.cpu.gpr[isa::rax] = type, vm.cpu.gpr[isa::rcx] = 0x10000;
    vm.map64(0x10000, 0x10000, pte::p | pte::w);
    return vm.run({0x66, 0x0f, 0x38, 0x82, 0x01});
  };
  const auto alive = [&] { return fmt::format("{} {}", vm.try_read(kUser) == "ok", vm.try_read(kKernel) == "ok"); };
  refill();
  EXPECT_EQ(invpcid(0, 0, kUser), "ok");
  EXPECT_EQ(alive(), "false true");
  refill();
  EXPECT_EQ(invpcid(1, 0, 0), "ok");
  EXPECT_EQ(alive(), "false true");
  refill();
  EXPECT_EQ(invpcid(1, 9, 0), "ok");
  EXPECT_EQ(alive(), "true true");
  refill();
  EXPECT_EQ(invpcid(3, 0, 0), "ok");
  EXPECT_EQ(alive(), "false true");
  refill();
  EXPECT_EQ(invpcid(2, 0, 0), "ok");
  EXPECT_EQ(alive(), "false false");
  EXPECT_EQ(invpcid(4, 0, 0), "#GP(0x0)");
  EXPECT_EQ(invpcid(1, 0x1000, 0), "#GP(0x0)");
  EXPECT_EQ(invpcid(0, 0, u64{1} << 52), "#GP(0x0)");
  vm.set_cpl(3);
  EXPECT_EQ(vm.run({0x66, 0x0f, 0x38, 0x82, 0x01}), "#GP(0x0)");
}

TEST_F(LongModePaging, DeviceMemoryIsSplitIntoAlignedCyclesAndNeverCached) {
  vm.map64(kUser, kLapicless, pte::p | pte::w);
  vm.bus.mmio[kLapicless + 4] = 0xcafe;
  u32 v;
  ASSERT_TRUE(vm.load(kUser + 4, &v));
  EXPECT_EQ(v, 0xcafeu);
  ASSERT_TRUE(vm.store<u32>(kUser + 6, 0x44332211));
  ASSERT_TRUE(vm.store<u64>(kUser + 8, 5));
  u16 odd;
  ASSERT_TRUE(vm.load(kUser + 1, &odd));
  EXPECT_EQ(vm.bus.log, (std::vector<std::string>{"r4 0xd0000004", "w2 0xd0000006 0x2211", "w2 0xd0000008 0x4433",
                                                  "w8 0xd0000008 0x5", "r1 0xd0000001", "r1 0xd0000002"}));
  EXPECT_EQ(tlb_lookup(vm.cpu, Gva{kUser}, 1, vm.cpu.need_read), nullptr);
  bool faulted = true;
  EXPECT_EQ(rmw_slow(vm.cpu, Seg::ds, Gva{kUser}, 4, &faulted), nullptr);
  EXPECT_FALSE(faulted);
  EXPECT_EQ(vm.try_fetch(kUser), "#GP(0x0)");
}

TEST_F(LongModePaging, TablesOutsideRamReadAsAllOnes) {
  vm.at<u64>(vm.entry64(kUser, 1)) = kLapicless | pte::p | pte::w | pte::u;
  EXPECT_EQ(vm.try_read(kUser), "#PF(0x9) at 0x400000");
  vm.cpu.cr3 = 0xffffff000;
  tlb_flush_all(vm.cpu);
  EXPECT_EQ(vm.try_write(kUser), "#PF(0xb) at 0x400000");
}

TEST_F(LongModePaging, AlignmentCheckNeedsAmAcAndRing3) {
  vm.map64(kUser, kPage, pte::p | pte::w | pte::u);
  vm.cpu.cr0 |= cr0::am;
  vm.set_flag(flag::ac, true);
  u32 v;
  EXPECT_EQ(vm.outcome(vm.load(kUser + 1, &v)), "ok");
  vm.set_cpl(3);
  EXPECT_EQ(vm.outcome(vm.load(kUser + 1, &v)), "#AC(0x0)");
  EXPECT_EQ(vm.outcome(vm.load(kUser + 4, &v)), "ok");
  EXPECT_EQ(vm.outcome(vm.store<u64>(kUser + 4, 1)), "#AC(0x0)");
  u16 w;
  EXPECT_EQ(vm.outcome(vm.load(kUser + 2, &w)), "ok");
  vm.set_flag(flag::ac, false);
  EXPECT_EQ(vm.outcome(vm.load(kUser + 1, &v)), "ok");
}

TEST_F(LongModePaging, DataBreakpointsAreRecorded) {
  vm.map64(kUser, kPage, pte::p | pte::w | pte::u);
  vm.cpu.debug.dr[0] = kUser + 8;
  vm.cpu.debug.dr[2] = kUser + 16;
  vm.cpu.debug.dr7 =
      0x400 | 1 | (u64{0b1101} << 16) | (1 << 5) | (u64{0b0011} << 24);  // 0: write, 4 bytes; 2: any, 1 byte
  update_access(vm.cpu);
  u64 v;
  ASSERT_TRUE(vm.load(kUser + 8, &v));
  EXPECT_EQ(vm.cpu.debug_hits, 0u);
  ASSERT_TRUE(vm.store<u8>(kUser + 11, 1));
  EXPECT_EQ(vm.cpu.debug_hits, 1u);
  vm.cpu.debug_hits = 0;
  ASSERT_TRUE(vm.store<u64>(kUser + 12, 1));
  EXPECT_EQ(vm.cpu.debug_hits, 4u) << "bytes 12..19: past the first, over the second";
  vm.cpu.debug_hits = 0;
  ASSERT_TRUE(vm.load(kUser + 16, &v));
  EXPECT_EQ(vm.cpu.debug_hits, 4u);
  vm.cpu.debug_hits = 0;
  EXPECT_TRUE(probe(vm.cpu, Seg::ds, Gva{kUser + 16}, 8, Access::write));
  EXPECT_EQ(vm.cpu.debug_hits, 0u);
}

TEST_F(LongModePaging, WritesToCodeTakeTheSlowPathUntilItIsGone) {
  vm.map64(kUser, kPage, pte::p | pte::w | pte::u);
  ASSERT_EQ(vm.try_write(kUser), "ok");
  ASSERT_NE(tlb_lookup(vm.cpu, Gva{kUser}, 1, vm.cpu.need_write), nullptr);
  const u64 frame = kPage / kPageSize;
  const u32 generation = vm.code.generation(frame);
  vm.code.mark(vm.cpu, frame, 0x100, 0x10);
  EXPECT_EQ(tlb_lookup(vm.cpu, Gva{kUser}, 1, vm.cpu.need_write), nullptr);
  ASSERT_EQ(vm.try_write(kUser), "ok");
  EXPECT_EQ(vm.code.generation(frame), generation) << "another line";
  EXPECT_EQ(tlb_lookup(vm.cpu, Gva{kUser}, 1, vm.cpu.need_write), nullptr);
  bool faulted;
  EXPECT_EQ(rmw_slow(vm.cpu, Seg::ds, Gva{kUser}, 4, &faulted), nullptr);
  EXPECT_FALSE(faulted);
  ASSERT_TRUE(vm.store<u64>(kUser + 0xfc, 0));
  EXPECT_EQ(vm.code.generation(frame), generation + 1);
  ASSERT_EQ(vm.try_write(kUser), "ok");
  EXPECT_NE(tlb_lookup(vm.cpu, Gva{kUser}, 1, vm.cpu.need_write), nullptr);
}

TEST_F(LongModePaging, EveryAliasLosesWritePermission) {
  for (u64 i = 0; i < 5; i++) {
    vm.map64(kUser + i * kPageSize, kPage, pte::p | pte::w);
    ASSERT_EQ(vm.try_write(kUser + i * kPageSize), "ok");
  }
  vm.map64(kKernel, kPage, pte::p | pte::w);
  ASSERT_EQ(vm.try_write(kKernel), "ok");
  vm.code.mark(vm.cpu, kPage / kPageSize, 0, 4);
  for (u64 i = 0; i < 5; i++)
    EXPECT_EQ(tlb_lookup(vm.cpu, Gva{kUser + i * kPageSize}, 1, vm.cpu.need_write), nullptr) << i;
  EXPECT_EQ(tlb_lookup(vm.cpu, Gva{kKernel}, 1, vm.cpu.need_write), nullptr);
  EXPECT_NE(tlb_lookup(vm.cpu, Gva{kKernel}, 1, vm.cpu.need_read), nullptr);
}

TEST_F(LongModePaging, PeekHasNoSideEffectsAndPokeTellsTheCodeMap) {
  u64& e = vm.map64(kUser, kPage, pte::p);
  vm.map64(kUser + 0x1000, 0x300000, pte::p);
  vm.at<u16>(kPage + 0xffe) = 0x1234;
  vm.at<u16>(0x300000) = 0x5678;
  u32 v = 0;
  ASSERT_TRUE(peek(vm.cpu, Gva{kUser + 0xffe}, &v, 4));
  EXPECT_EQ(v, 0x56781234u);
  EXPECT_FALSE(e & pte::a);
  EXPECT_FALSE(peek(vm.cpu, Gva{0x9000}, &v, 4));
  vm.code.mark(vm.cpu, kPage / kPageSize, 0, 1);
  EXPECT_TRUE(poke(vm.cpu, Gva{kUser}, &v, 4));
  EXPECT_EQ(vm.code.generation(kPage / kPageSize), 1u);
}

struct PaePaging : testing::Test {
  BareVm vm;
  void SetUp() override { vm.enter_pae(); }
};

TEST_F(PaePaging, WalksThreeLevels) {
  vm.map_pae(0xc0001000, kPage, pte::p | pte::w);
  vm.at<u8>(kPage + 3) = 9;
  u8 b = 0;
  ASSERT_TRUE(vm.load<u8>(0xc0001003, &b));
  EXPECT_EQ(b, 9);
  vm.map_pae(0x40200000, 0x200000, pte::p | pte::w | pte::nx, 1);
  EXPECT_EQ(vm.try_write(0x40200003), "ok");
  EXPECT_EQ(vm.at<u8>(kPage + 3), 0x5a);
  EXPECT_EQ(vm.try_fetch(0x40200000), "#PF(0x11) at 0x40200000");
  EXPECT_EQ(vm.try_read(0x80000000), "#PF(0x0) at 0x80000000");
}

TEST_F(PaePaging, AddressesWrapAtFourGigabytes) {
  vm.map_pae(0xfffff000, kPage, pte::p | pte::w);
  vm.map_pae(0, 0x300000, pte::p | pte::w);
  ASSERT_TRUE(vm.store<u32>(0xfffffffe, 0xaabbccdd));
  EXPECT_EQ(vm.at<u16>(kPage + 0xffe), 0xccdd);
  EXPECT_EQ(vm.at<u16>(0x300000), 0xaabb);
}

TEST_F(PaePaging, MovToCr3ChecksThePdptes) {
  const u64 table = vm.new_table() + 0x20;
  vm.at<u64>(table) = kPage | pte::p;
  ASSERT_TRUE(write_cr3(vm.cpu, table));
  EXPECT_EQ(vm.cpu.pdpte[0], kPage | pte::p);
  vm.at<u64>(table + 24) = kPage | pte::p | pte::w;
  const u64 before = vm.cpu.cr3;
  EXPECT_EQ(vm.outcome(write_cr3(vm.cpu, table)), "#GP(0x0)");
  EXPECT_EQ(vm.cpu.cr3, before);
  vm.at<u64>(table + 24) = pte::w;  // not present: its other bits are ignored
  EXPECT_TRUE(write_cr3(vm.cpu, table));
}

TEST_F(PaePaging, Bits62To52AreReserved) {
  vm.map_pae(0x1000, kPage | u64{1} << 60, pte::p | pte::w);
  EXPECT_EQ(vm.try_read(0x1000), "#PF(0x9) at 0x1000");
}

struct TwoLevelPaging : testing::Test {
  BareVm vm;
  void SetUp() override { vm.enter_32(); }
};

TEST_F(TwoLevelPaging, SmallAndLargePages) {
  u32& e = vm.map_32(0xc0000000, kPage, pte::p | pte::w);
  EXPECT_EQ(vm.try_write(0xc0000010), "ok");
  EXPECT_EQ(vm.at<u8>(kPage + 0x10), 0x5a);
  EXPECT_TRUE(e & pte::a);
  EXPECT_TRUE(e & pte::d);
  u32& large = vm.map_32(0x800000, 0, pte::p | pte::w, 1);
  EXPECT_EQ(vm.try_write(0x800000 + kPage + 0x20), "ok");
  EXPECT_EQ(vm.at<u8>(kPage + 0x20), 0x5a);
  EXPECT_TRUE(large & pte::d);
  // INVLPG of any address in the 4 MiB.
  large = 0;
  tlb_flush_page(vm.cpu, Gva{0x800000});
  EXPECT_EQ(vm.try_read(0x800000 + kPage), "#PF(0x0) at 0xa00000");
}

TEST_F(TwoLevelPaging, WithoutPseTheSizeBitIsIgnored) {
  vm.map_32(0x400000, kPage, pte::p | pte::w);
  vm.at<u32>(vm.cpu.cr3 + 4) |= pte::ps;
  EXPECT_EQ(vm.try_read(0x400000), "ok");
  EXPECT_EQ(vm.bus.log.size(), 1u) << "as a large page it names an address above 4 GiB";
  ASSERT_TRUE(write_cr4(vm.cpu, vm.cpu.cr4 & ~cr4::pse));
  EXPECT_EQ(vm.try_read(0x400000), "ok");
  EXPECT_EQ(vm.bus.log.size(), 1u);
}

TEST_F(TwoLevelPaging, Pse36ReachesAboveFourGigabytes) {
  vm.map_32(0x400000, 0x2000, pte::p | pte::w, 1);  // bit 13: address bit 32
  EXPECT_EQ(vm.try_read(0x400123), "ok");
  EXPECT_EQ(vm.bus.log, std::vector<std::string>{"r1 0x100000123"});
  vm.map_32(0x800000, 0x200000, pte::p | pte::w, 1);
  EXPECT_EQ(vm.try_read(0x800000), "#PF(0x9) at 0x800000");
}

TEST_F(TwoLevelPaging, NoFetchBitWithoutNxOrSmep) { EXPECT_EQ(vm.try_fetch(0x1000), "#PF(0x0) at 0x1000"); }

struct SegmentChecks : testing::Test {
  BareVm vm;
  void SetUp() override {
    vm.seg(Seg::cs) = BareVm::flat(0xc09b);
    vm.cpu.cr0 = cr0::pe | cr0::et;
    update_mode(vm.cpu);
  }
  std::string read_at(Seg s, u64 offset, unsigned size = 1, Access access = Access::read) {
    Gva linear;
    return vm.outcome(to_linear(vm.cpu, s, offset, size, access, linear));
  }
  void set(Seg s, u16 attr, u32 limit, u64 base = 0x1000) {
    vm.seg(s) = BareVm::flat(attr);
    vm.seg(s).limit = limit;
    vm.seg(s).base = base;
    update_mode(vm.cpu);
  }
};

TEST_F(SegmentChecks, LimitsAndTypes) {
  set(Seg::es, 0x4093, 0xfff);
  EXPECT_EQ(read_at(Seg::es, 0xffc, 4), "ok");
  EXPECT_EQ(read_at(Seg::es, 0xffd, 4), "#GP(0x0)");
  EXPECT_EQ(read_at(Seg::es, 0xffffffff, 4), "#GP(0x0)");
  set(Seg::ss, 0x4093, 0xfff);
  EXPECT_EQ(read_at(Seg::ss, 0x1000), "#SS(0x0)");
  set(Seg::ds, 0x4091, 0xffffffff);
  EXPECT_EQ(read_at(Seg::ds, 5), "ok");
  EXPECT_EQ(read_at(Seg::ds, 5, 1, Access::write), "#GP(0x0)");
  set(Seg::fs, 0xc099, 0xffffffff);  // execute-only
  EXPECT_EQ(read_at(Seg::fs, 5), "#GP(0x0)");
  EXPECT_EQ(read_at(Seg::cs, 5), "ok");
  EXPECT_EQ(read_at(Seg::cs, 5, 1, Access::write), "#GP(0x0)");
  vm.seg(Seg::gs).usable = false;
  update_mode(vm.cpu);
  EXPECT_EQ(read_at(Seg::gs, 0), "#GP(0x0)");
}

TEST_F(SegmentChecks, ExpandDown) {
  set(Seg::ds, 0x4097, 0xfff);  // valid: 0x1000..0xffffffff
  EXPECT_EQ(read_at(Seg::ds, 0xfff), "#GP(0x0)");
  EXPECT_EQ(read_at(Seg::ds, 0x1000, 4), "ok");
  EXPECT_EQ(read_at(Seg::ds, 0xfffffffd, 4), "#GP(0x0)");
  set(Seg::ds, 0x0097, 0xfff);  // B = 0: up to 0xffff
  EXPECT_EQ(read_at(Seg::ds, 0xfffc, 4), "ok");
  EXPECT_EQ(read_at(Seg::ds, 0xfffd, 4), "#GP(0x0)");
}

TEST_F(SegmentChecks, RealModeHasLimitsUnlessUnreal) {
  vm.cpu.cr0 = cr0::et;
  set(Seg::ds, 0x93, 0xffff, 0x12340);
  EXPECT_EQ(vm.cpu.mode, Mode::real);
  EXPECT_EQ(read_at(Seg::ds, 0xffff), "ok");
  EXPECT_EQ(read_at(Seg::ds, 0xffff, 2), "#GP(0x0)");
  ASSERT_TRUE(vm.store<u8>(0x10, 7));
  EXPECT_EQ(vm.at<u8>(0x12350), 7);
  set(Seg::ds, 0x93, 0xffffffff, 0);
  EXPECT_EQ(read_at(Seg::ds, 0x500000, 4), "ok");
}

TEST_F(SegmentChecks, SixteenBitStacksWrapAndKeepTheUpperHalf) {
  set(Seg::ss, 0x0093, 0xffff, 0x20000);
  vm.cpu.gpr[isa::rsp] = 0xabcd0000;
  ASSERT_TRUE(push(vm.cpu, 0x1234, 2));
  EXPECT_EQ(vm.cpu.gpr[isa::rsp], 0xabcdfffeu);
  EXPECT_EQ(vm.at<u16>(0x2fffe), 0x1234);
  u64 v;
  ASSERT_TRUE(pop(vm.cpu, &v, 2));
  EXPECT_EQ(v, 0x1234u);
  EXPECT_EQ(vm.cpu.gpr[isa::rsp], 0xabcd0000u);
  vm.cpu.gpr[isa::rsp] = 1;
  EXPECT_EQ(vm.outcome(push(vm.cpu, 1, 2)), "#SS(0x0)");
  EXPECT_EQ(vm.cpu.gpr[isa::rsp], 1u);
  EXPECT_EQ(stack_bytes(vm.cpu), 2u);
}

TEST(Reset, StateOfTheManual) {
  BareVm vm;
  vm.cpu.gpr[isa::rbx] = 5;
  vm.cpu.cr0 |= cr0::nw;
  vm.cpu.msr.lstar = 7;
  vm.cpu.efer = efer::sce;
  reset(vm.cpu, true);
  EXPECT_EQ(vm.cpu.rip, 0xfff0u);
  EXPECT_EQ(vm.seg(Seg::cs).base, 0xffff0000u);
  EXPECT_EQ(vm.cpu.gpr[isa::rbx], 0u);
  EXPECT_EQ(vm.cpu.cr0, 0x60000010u);
  EXPECT_EQ(vm.cpu.msr.lstar, 7u) << "INIT keeps the MSRs";
  EXPECT_EQ(vm.cpu.efer, 0u);
  EXPECT_EQ(vm.cpu.mode, Mode::real);
  EXPECT_EQ(vm.cpu.rflags(), 2u);
  vm.cpu.index = 1;
  reset(vm.cpu, false);
  EXPECT_EQ(vm.cpu.activity, Activity::wait_for_sipi);
  EXPECT_EQ(vm.cpu.msr.lstar, 0u);
}

}  // namespace
}  // namespace trapline::cpu::test
