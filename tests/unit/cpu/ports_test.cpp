#include <gtest/gtest.h>

#include "bare_vm.h"

namespace trapline::cpu::test {
namespace {

using Log = std::vector<std::string>;
constexpr u64 kTss = 0x8000, kBuffer = 0x20000;

struct Ports : testing::Test {
  BareVm vm;
  void SetUp() override {
    vm.enter_long64();
    for (u64 a = 0; a < 0x80000; a += kPageSize) vm.map64(a, a, pte::p | pte::w | pte::u);
    vm.cpu.tr = BareVm::flat(0x8b);
    vm.cpu.tr.base = kTss;
    vm.cpu.tr.limit = 0x68 + 0x80;  // ports 0..0x3f7, and the byte after
    vm.at<u16>(kTss + 0x66) = 0x68;
    vm.cpu.gpr[isa::rdx] = 0x3f0;
  }
};

TEST_F(Ports, WidthsAndRegisters) {
  vm.bus.input[0x60] = {0x11};
  vm.bus.input[0x3f0] = {0xaabbccdd, 0x11112222};
  vm.cpu.gpr[isa::rax] = ~u64{0};
  EXPECT_EQ(vm.run({0xe4, 0x60}), "ok");  // in al, 0x60
  EXPECT_EQ(vm.cpu.gpr[isa::rax], 0xffffffffffffff11u);
  EXPECT_EQ(vm.run({0x66, 0xed}), "ok");  // in ax, dx
  EXPECT_EQ(vm.cpu.gpr[isa::rax], 0xffffffffffffccddu);
  EXPECT_EQ(vm.run({0xed}), "ok");  // in eax, dx: zero-extends
  EXPECT_EQ(vm.cpu.gpr[isa::rax], 0x11112222u);
  EXPECT_EQ(vm.run({0xe6, 0x80}), "ok");
  EXPECT_EQ(vm.run({0x66, 0xef}), "ok");
  EXPECT_EQ(vm.run({0xef}), "ok");
  EXPECT_EQ(vm.bus.log, (Log{"in1 0x60", "in2 0x3f0", "in4 0x3f0", "out1 0x80 0x22", "out2 0x3f0 0x2222",
                             "out4 0x3f0 0x11112222"}));
}

TEST_F(Ports, TheBitmapCountsOnlyAboveIopl) {
  vm.at<u8>(kTss + 0x68 + 0x3f0 / 8) = 0x04;  // 0x3f2
  EXPECT_EQ(vm.run({0xed}), "ok") << "CPL 0";
  vm.set_cpl(3);
  EXPECT_EQ(vm.run({0xec}), "ok");
  EXPECT_EQ(vm.run({0x66, 0xed}), "ok");
  EXPECT_EQ(vm.run({0xed}), "#GP(0x0)") << "0x3f0..0x3f3";
  EXPECT_EQ(vm.run({0x6d}), "#GP(0x0)");
  vm.cpu.gpr[isa::rdx] = 0x400;
  EXPECT_EQ(vm.run({0xec}), "#GP(0x0)") << "beyond the limit";
  vm.cpu.gpr[isa::rdx] = 0xffff;
  vm.at<u16>(kTss + 0x66) = 0xffff;
  EXPECT_EQ(vm.run({0xec}), "#GP(0x0)");
  vm.cpu.sys_flags |= flag::iopl;
  EXPECT_EQ(vm.run({0xec}), "ok");
  vm.cpu.sys_flags &= ~flag::iopl;
  vm.cpu.tr.attr = 0x83;  // a 16-bit TSS has no bitmap
  EXPECT_EQ(vm.run({0xec}), "#GP(0x0)");
}

TEST_F(Ports, RepInsStopsAtThePageAndCanBeRepeated) {
  constexpr unsigned kItems = 10;
  const u64 start = kBuffer + kPageSize - 4 * 4 + 2;  // three fit, one straddles, six follow
  for (u32 i = 0; i < kItems; i++) vm.bus.input[0x3f0].push_back(0x1000 + i);
  vm.cpu.gpr[isa::rcx] = kItems;
  vm.cpu.gpr[isa::rdi] = start;
  std::vector<u64> progress;
  while (vm.run({0xf3, 0x6d}) == "repeat") progress.push_back(vm.cpu.gpr[isa::rcx]);
  EXPECT_EQ(progress, (std::vector<u64>{7, 6}));
  EXPECT_EQ(vm.cpu.gpr[isa::rcx], 0u);
  EXPECT_EQ(vm.cpu.gpr[isa::rdi], start + 4 * kItems);
  for (u32 i = 0; i < kItems; i++) EXPECT_EQ(vm.get<u32>(start + 4 * i), 0x1000 + i);
}

TEST_F(Ports, RepInsFaultsBeforeTheDeviceIsRead) {
  vm.at<u64>(vm.entry64(kBuffer + kPageSize, 0)) = 0;
  vm.cpu.gpr[isa::rcx] = 4;
  vm.cpu.gpr[isa::rdi] = kBuffer + kPageSize - 2;
  EXPECT_EQ(vm.run({0xf3, 0x66, 0x6d}), "repeat");
  EXPECT_EQ(vm.run({0xf3, 0x66, 0x6d}), "#PF(0x2) at 0x21000");
  EXPECT_EQ(vm.cpu.gpr[isa::rcx], 3u);
  EXPECT_EQ(vm.cpu.gpr[isa::rdi], kBuffer + kPageSize);
  EXPECT_EQ(vm.bus.log, Log{"in2 0x3f0"});
}

TEST_F(Ports, RepOutsInBulkAndBackwards) {
  std::memcpy(&vm.at<u8>(kBuffer), "abcdef", 6);
  vm.cpu.gpr[isa::rcx] = 3;
  vm.cpu.gpr[isa::rsi] = kBuffer;
  EXPECT_EQ(vm.run({0xf3, 0x6e}), "ok");
  EXPECT_EQ(vm.bus.log, (Log{"out1 0x3f0 0x61", "out1 0x3f0 0x62", "out1 0x3f0 0x63"}));
  EXPECT_EQ(vm.cpu.gpr[isa::rsi], kBuffer + 3);
  vm.cpu.sys_flags |= flag::df;
  vm.cpu.gpr[isa::rcx] = 2;
  EXPECT_EQ(vm.run({0xf3, 0x6e}), "repeat");
  EXPECT_EQ(vm.run({0xf3, 0x6e}), "ok");
  EXPECT_EQ(vm.bus.log.back(), "out1 0x3f0 0x63");
  EXPECT_EQ(vm.cpu.gpr[isa::rsi], kBuffer + 1);
}

TEST_F(Ports, RepWithCountZeroDoesNothingButNeedsPermission) {
  vm.cpu.gpr[isa::rdx] = 0x9000;
  vm.cpu.gpr[isa::rcx] = 0;
  EXPECT_EQ(vm.run({0xf3, 0x6c}), "ok");
  vm.set_cpl(3);
  EXPECT_EQ(vm.run({0xf3, 0x6c}), "#GP(0x0)");
  EXPECT_TRUE(vm.bus.log.empty());
}

TEST_F(Ports, AddressSizeMasksPointerAndCount) {
  vm.cpu.gpr[isa::rcx] = 0xffffffff00000002;
  vm.cpu.gpr[isa::rdi] = 0xffffffff00020000;
  EXPECT_EQ(vm.run({0x67, 0xf3, 0x6c}), "ok");
  EXPECT_EQ(vm.cpu.gpr[isa::rcx], 0u);
  EXPECT_EQ(vm.cpu.gpr[isa::rdi], 0x20002u);
}

TEST_F(Ports, SingleStepMovesOneItem) {
  vm.cpu.sys_flags |= flag::tf;
  vm.cpu.gpr[isa::rcx] = 5;
  vm.cpu.gpr[isa::rdi] = kBuffer;
  EXPECT_EQ(vm.run({0xf3, 0x6c}), "repeat");
  EXPECT_EQ(vm.cpu.gpr[isa::rcx], 4u);
}

TEST_F(Ports, BreakpointsOnPorts) {
  vm.cpu.debug.dr[1] = 0x3f0;
  vm.cpu.debug.dr7 = 0x400 | 1 << 2 | 2 << 20;
  update_access(vm.cpu);
  EXPECT_EQ(vm.run({0xec}), "ok");
  EXPECT_EQ(vm.cpu.debug_hits, 0u) << "without CR4.DE";
  ASSERT_TRUE(write_cr4(vm.cpu, vm.cpu.cr4 | cr4::de));
  EXPECT_EQ(vm.run({0xec}), "ok");
  EXPECT_EQ(vm.cpu.debug_hits, 2u);
}

TEST(PortsReal, SixteenBitAddressesWrapAndSegmentsEnd) {
  BareVm vm;
  for (Segment& s : vm.cpu.seg) s = BareVm::flat(0x93), s.limit = 0xffff;
  vm.seg(Seg::es).base = 0x30000;
  update_mode(vm.cpu);
  vm.cpu.gpr[isa::rcx] = 3;
  vm.cpu.gpr[isa::rdi] = 0xabcdfffe;
  vm.bus.input[0] = {1, 2, 3};
  EXPECT_EQ(vm.run({0xf3, 0x6c}), "repeat");
  EXPECT_EQ(vm.cpu.gpr[isa::rdi], 0xabcd0000u);
  EXPECT_EQ(vm.run({0xf3, 0x6c}), "ok");
  EXPECT_EQ(vm.at<u8>(0x3fffe), 1);
  EXPECT_EQ(vm.at<u8>(0x3ffff), 2);
  EXPECT_EQ(vm.at<u8>(0x30000), 3);
  vm.cpu.gpr[isa::rcx] = 1;
  vm.cpu.gpr[isa::rdi] = 0xffff;
  EXPECT_EQ(vm.run({0xf3, 0x6d}), "#GP(0x0)");
  EXPECT_EQ(vm.cpu.gpr[isa::rcx], 1u);
}

}  // namespace
}  // namespace trapline::cpu::test
