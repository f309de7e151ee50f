// Locked accesses that the fast path does not take: beside code, across pages, on devices.
#include <gtest/gtest.h>

#include <array>

#include "bare_vm.h"
#include "cpu/mmu.h"

namespace trapline::cpu::test {
namespace {

constexpr u64 kUser = 0x400000, kPage = 0x200000, kFrame = kPage / kPageSize, kDevice = 0xd0000000;

struct LockedAccess : testing::Test {
  BareVm vm;
  void SetUp() override {
    vm.enter_long64();
    vm.map64(kUser, kPage, pte::p | pte::w);
    vm.map64(kUser + kPageSize, kPage + kPageSize, pte::p | pte::w);
  }
  template <class T>
  bool replace(u64 linear, T expected, T wanted) {
    bool stored = false;
    EXPECT_TRUE(replace_slow(vm.cpu, Seg::ds, Gva{linear}, &expected, &wanted, sizeof(T), &stored));
    return stored;
  }
};

TEST_F(LockedAccess, StoresOnlyOverWhatWasExpected) {
  vm.at<u64>(kPage) = 0x1111222233334444;
  EXPECT_FALSE(replace<u32>(kUser, 1, 2));
  EXPECT_TRUE(replace<u8>(kUser, 0x44, 0x55));
  EXPECT_TRUE(replace<u16>(kUser + 2, 0x3333, 0x6666));
  EXPECT_TRUE(replace<u32>(kUser + 4, 0x11112222, 0x77778888));
  EXPECT_EQ(vm.at<u64>(kPage), 0x7777888866664455u);
  EXPECT_TRUE(replace<u64>(kUser, 0x7777888866664455, 9));
  EXPECT_EQ(vm.at<u64>(kPage), 9u);
  using Pair = std::array<u64, 2>;
  EXPECT_FALSE(replace<Pair>(kUser, Pair{9, 1}, Pair{7, 8}));
  EXPECT_TRUE(replace<Pair>(kUser, Pair{9, 0}, Pair{7, 8}));
  EXPECT_EQ(vm.at<Pair>(kPage), (Pair{7, 8}));
}

// As on a host that ends processes for the real thing.
TEST_F(LockedAccess, AcrossALineWhereTheHostForbidsIt) {
  set_split_locks_trap(true);
  vm.put<u64>(kPage + 60, 0x1111222233334444);
  EXPECT_FALSE((replace<u64>(kUser + 60, 1, 2)));
  EXPECT_TRUE((replace<u64>(kUser + 60, 0x1111222233334444, 9)));
  EXPECT_EQ(vm.get<u64>(kPage + 60), 9u);
  u32 cells[32] = {};
  u32* const split =
      reinterpret_cast<u32*>(reinterpret_cast<u8*>(&cells[16]) - (reinterpret_cast<u64>(&cells[16]) & 63) - 2);
  u32 expected = 5;
  EXPECT_FALSE(compare_exchange(split, &expected, 7u));
  EXPECT_EQ(expected, 0u);
  EXPECT_TRUE(compare_exchange(split, &expected, 7u));
  set_split_locks_trap(false);
}

TEST_F(LockedAccess, TellsTheCodeMapWhenItStored) {
  vm.code.mark(vm.cpu, kFrame, 0x100, 0x10);
  const u32 generation = vm.code.generation(kFrame);
  EXPECT_FALSE(replace<u32>(kUser + 0x100, 1, 2));
  EXPECT_TRUE(replace<u32>(kUser + 0x40, 0, 2));
  EXPECT_EQ(vm.code.generation(kFrame), generation) << "not stored, or beside the code";
  EXPECT_TRUE(replace<u32>(kUser + 0x104, 0, 2));
  EXPECT_EQ(vm.code.generation(kFrame), generation + 1);
}

TEST_F(LockedAccess, AcrossPagesAndOnDevicesItStoresAnyhow) {
  EXPECT_TRUE(replace<u32>(kUser + kPageSize - 2, 5, 0x44332211));
  EXPECT_EQ(vm.get<u32>(kPage + kPageSize - 2), 0x44332211u);
  vm.map64(kUser, kDevice, pte::p | pte::w);
  tlb_flush_all(vm.cpu);
  EXPECT_TRUE(replace<u32>(kUser, 5, 6));
  EXPECT_EQ(vm.bus.log, (std::vector<std::string>{"w4 0xd0000000 0x6"}));
}

TEST_F(LockedAccess, FaultsAsAWrite) {
  vm.map64(kUser, kPage, pte::p);
  tlb_flush_all(vm.cpu);
  const u32 zero = 0;
  bool stored = false;
  EXPECT_FALSE(replace_slow(vm.cpu, Seg::ds, Gva{kUser}, &zero, &zero, 4, &stored));
  EXPECT_FALSE(stored);
  EXPECT_EQ(vm.cpu.fault.vector, Vector::pf);
  EXPECT_EQ(vm.cpu.fault.error, 3u);
}

}  // namespace
}  // namespace trapline::cpu::test
