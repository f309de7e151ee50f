// A firmware's ROM below 4 GiB: read and executed in place, written in vain.
#include "cpu/mmu.h"

#include <gtest/gtest.h>

#include "bare_vm.h"

namespace trapline::cpu::test {
namespace {

constexpr u64 kRom = 0xfffc0000;

struct Rom : testing::Test {
  BareVm vm{std::move(*GuestMemory::map(-1, 16 * MiB, {.rom = 256 * KiB}))};
  void SetUp() override {
    for (u64 i = 0; i < vm.ram.rom().size(); i++) vm.ram.rom()[i] = static_cast<std::byte>(i * 7);
  }
  u32 word(u64 at) { return vm.get<u32>(at); }
};

TEST_F(Rom, IsReadAndExecuted) {
  u32 v = 0;
  ASSERT_TRUE(vm.load(kRom + 0x1000, &v));
  EXPECT_EQ(v, word(kRom + 0x1000));
  EXPECT_EQ(vm.try_fetch(kRom + 0x3fff0), "ok");
  EXPECT_NE(tlb_lookup(vm.cpu, Gva{kRom + 0x1000}, 4, vm.cpu.need_read), nullptr);
  EXPECT_TRUE(vm.bus.log.empty());
}

TEST_F(Rom, WritesAreLost) {
  const u32 before = word(kRom + 0x1000);
  EXPECT_EQ(vm.try_write(kRom + 0x1000), "ok");
  EXPECT_EQ(word(kRom + 0x1000), before);
  u32 v = 0;
  ASSERT_TRUE(vm.load(kRom + 0x1000, &v));
  EXPECT_EQ(vm.try_write(kRom + 0x1000), "ok");  // now that the TLB has it
  EXPECT_EQ(tlb_lookup(vm.cpu, Gva{kRom + 0x1000}, 4, vm.cpu.need_write), nullptr);
  EXPECT_EQ(word(kRom + 0x1000), before);
  EXPECT_TRUE(vm.bus.log.empty());
}

TEST_F(Rom, AWriteAcrossItsEndsKeepsTheRamPart) {
  BareVm big{std::move(*GuestMemory::map(-1, 3 * GiB + 16 * MiB, {.rom = 64 * KiB}))};
  big.enter_long64();
  big.map64(0x400000, 0xfffff000, pte::p | pte::w);
  big.map64(0x401000, 4 * GiB, pte::p | pte::w);
  const u64 value = 0x1122334455667788;
  ASSERT_TRUE(write_slow(big.cpu, Seg::ds, Gva{0x400ffc}, &value, 8));
  EXPECT_EQ(big.at<u32>(4 * GiB), 0x11223344u);
  EXPECT_EQ(big.at<u32>(0xfffffffc), 0u);
}

TEST_F(Rom, AReadModifyWriteHasItsOldValue) {
  const u32 before = word(kRom + 8);
  bool faulted = true, stored = false;
  EXPECT_EQ(rmw_slow(vm.cpu, Seg::ds, Gva{kRom + 8}, 4, &faulted), nullptr);  // by reading and writing, then
  EXPECT_FALSE(faulted);
  const u32 next = before + 1;
  EXPECT_TRUE(replace_slow(vm.cpu, Seg::ds, Gva{kRom + 8}, &before, &next, 4, &stored));
  EXPECT_TRUE(stored);
  EXPECT_EQ(word(kRom + 8), before);
}

TEST_F(Rom, HoldsPageTables) {
  vm.enter_32();
  const u32 directory = static_cast<u32>(kRom + 0x2000);
  u32* const entries = reinterpret_cast<u32*>(vm.ram.host(Gpa{directory}));
  entries[1] = static_cast<u32>(pte::p | pte::w | pte::ps | pte::a | pte::d);
  vm.cpu.cr3 = directory;
  tlb_flush_all(vm.cpu);
  vm.at<u32>(0x5000) = 77;
  u32 v = 0;
  ASSERT_TRUE(vm.load(0x405000, &v));
  EXPECT_EQ(v, 77u);
}

}  // namespace
}  // namespace trapline::cpu::test
