// 32-bit code, interpreted and translated: operands of SSE, AVX and x87 instructions by 16-bit addresses and segments
// with a base and a limit, what such code leaves of the registers that it cannot name, and what only it has.
#include <cstring>

#include "engine/registry.h"
#include "interpret_vm.h"
#include "support/engines.h"
#include "support/vendors.h"

namespace trapline::engine::test {
namespace {

using namespace isa;

struct Legacy : testing::TestWithParam<const char*> {
  static constexpr u64 kFar = 0x5000;  // what 16 bits reach
  InterpretVm vm{Start::flat32};
  void SetUp() override {
    SKIP_UNLESS_OFFERED(GetParam());
    vm.cpu.cr4 |= cr4::osfxsr | cr4::osxmmexcpt | cr4::osxsave;
    vm.cpu.xcr0 = vm.cpuid.xcr0_allowed();
    update_mode(vm.cpu);
    vm.engine = find_engine(GetParam())->make(vm.cpu, vm.arena, {}, {.hot_threshold = 1});
    for (unsigned i = 0; i < 32; i++) {
      vm.at<u8>(kFar + i) = static_cast<u8>(0x40 + i);
      vm.at<u8>(vm.kData + i) = static_cast<u8>(0x80 + i);
    }
    vm.reg(rdi) = 0x7fff'0000 | kFar;
  }
  int start(std::initializer_list<int> code) {
    vm.cpu.activity = Activity::running;
    vm.cpu.rip = code_ += 64, vm.reg(rsp) = vm.kStack;  // where nothing is decoded yet
    vm.put(code_, code);
    vm.run();
    return vm.vector();
  }
  u64 vector_word(unsigned reg, unsigned byte = 0) {
    u64 value;
    std::memcpy(&value, vm.cpu.vec.zmm[reg] + byte, 8);
    return value;
  }
  u64 code_ = InterpretVm::kCode;
};

TEST_P(Legacy, VectorOperandsBy16BitAddresses) {
  EXPECT_EQ(start({0x67, 0xf3, 0x0f, 0x6f, 0x0d, 0xf4}), -1);  // movdqu xmm1, [di]
  EXPECT_EQ(vector_word(1), vm.at<u64>(kFar));
  EXPECT_EQ(start({0x67, 0x66, 0x0f, 0xd6, 0x4d, 0x40, 0xf4}), -1);  // movq [di+64], xmm1
  EXPECT_EQ(vm.at<u64>(kFar + 64), vm.at<u64>(kFar));
  if (!vm.cpuid.has("avx")) GTEST_SKIP() << "the host lacks AVX";
  EXPECT_EQ(start({0x67, 0xc5, 0xfa, 0x6f, 0x55, 0x08, 0xf4}), -1);  // vmovdqu xmm2, [di+8]
  EXPECT_EQ(vector_word(2), vm.at<u64>(kFar + 8));
}

TEST_P(Legacy, X87OperandsBy16BitAddresses) {
  EXPECT_EQ(start({0xdb, 0xe3, 0x67, 0xdf, 0x2d, 0x67, 0xdf, 0x7d, 0x40, 0xf4}), -1);  // fild, fistp qword [di+64]
  EXPECT_EQ(vm.at<u64>(kFar + 64), vm.at<u64>(kFar));
}

TEST_P(Legacy, VectorOperandsInASegmentWithABaseAndALimit) {
  vm.seg(Seg::gs).base = vm.kData, vm.seg(Seg::gs).limit = 0xfff;
  update_mode(vm.cpu);
  tlb_flush_all(vm.cpu);
  vm.reg(rdi) = 8;
  EXPECT_EQ(start({0x65, 0xf3, 0x0f, 0x6f, 0x0f, 0xf4}), -1);  // movdqu xmm1, gs:[edi]
  EXPECT_EQ(vector_word(1), vm.at<u64>(vm.kData + 8));
  EXPECT_EQ(start({0xdb, 0xe3, 0x65, 0xdf, 0x2f, 0x65, 0xdf, 0x7f, 0x40, 0xf4}), -1);  // fild, fistp gs:[edi+64]
  EXPECT_EQ(vm.at<u64>(vm.kData + 72), vm.at<u64>(vm.kData + 8));
  vm.reg(rdi) = 0xff8;
  EXPECT_EQ(start({0x65, 0xf3, 0x0f, 0x6f, 0x0f, 0xf4}), 13);
}

TEST_P(Legacy, CodeSegmentsAreNotWritten) {
  vm.reg(rdi) = vm.kData;
  EXPECT_EQ(start({0x2e, 0xf3, 0x0f, 0x6f, 0x0f, 0xf4}), -1);  // movdqu xmm1, cs:[edi]
  EXPECT_EQ(start({0x2e, 0xf3, 0x0f, 0x7f, 0x0f, 0xf4}), 13);
}

TEST_P(Legacy, TheUpperEightRegistersAreLeftAlone) {
  if (!vm.cpuid.has("avx")) GTEST_SKIP() << "the host lacks AVX";
  std::memset(vm.cpu.vec.zmm, 0x55, sizeof vm.cpu.vec.zmm);
  EXPECT_EQ(start({0xc5, 0xf8, 0x77, 0xf4}), -1);  // vzeroupper
  EXPECT_EQ(vector_word(7, 16), 0u);
  EXPECT_EQ(vector_word(8, 16), 0x5555'5555'5555'5555u);
  EXPECT_EQ(start({0xc5, 0xfc, 0x77, 0xf4}), -1);  // vzeroall
  EXPECT_EQ(vector_word(7), 0u);
  EXPECT_EQ(vector_word(8), 0x5555'5555'5555'5555u);
}

// An immediate offset is cut to the operand, where the look-up does not reach it either.
TEST_P(Legacy, BitTestsByANumberInACodeSegment) {
  vm.reg(rdi) = vm.kData;
  vm.reg(rax) = 3;  // no operand of these
  vm.at<u64>(vm.kData) = u64{1} << 10;
  EXPECT_EQ(start({0x2e, 0x0f, 0xba, 0x27, 0x6a, 0x0f, 0x92, 0xc1, 0xf4}), -1);  // bt dword cs:[edi], 106; setc cl
  EXPECT_EQ(vm.reg(rcx) & 0xff, 1u);
  EXPECT_EQ(start({0x2e, 0x0f, 0xba, 0x27, 0x69, 0x0f, 0x92, 0xc1, 0xf4}), -1);
  EXPECT_EQ(vm.reg(rcx) & 0xff, 0u);
  vm.seg(Seg::gs).base = vm.kData, vm.seg(Seg::gs).limit = 0xfff;
  update_mode(vm.cpu);
  tlb_flush_all(vm.cpu);
  vm.reg(rdi) = 0;
  EXPECT_EQ(start({0x65, 0x0f, 0xba, 0x2f, 0x45, 0xf4}), -1);  // bts dword gs:[edi], 69
  EXPECT_EQ(vm.at<u64>(vm.kData), u64{1} << 10 | u64{1} << 5);
}

// VEX.W selects RAX and RDX in 64-bit code alone.
TEST_P(Legacy, LengthsOfStringComparisonsHave32Bits) {
  if (!vm.cpuid.has("avx")) GTEST_SKIP() << "the host lacks AVX";
  std::memset(vm.cpu.vec.zmm[0], 7, 16);
  std::memset(vm.cpu.vec.zmm[1], 7, 16);
  vm.reg(rax) = 4, vm.reg(rdx) = 9;
  EXPECT_EQ(start({0xc4, 0xe3, 0xf9, 0x61, 0xc1, 0x18, 0xf4}), -1);  // vpcmpestri xmm0, xmm1: equal each, negated
  EXPECT_EQ(vm.reg(rcx), 4u);
}

TEST_P(Legacy, FlagsOfDecimalInstructionsAreThoseOfTheResult) {
  const auto flags = [&] { return vm.cpu.rflags() & 0x8d5; };  // OF SF ZF AF PF CF
  vm.reg(rax) = 0x01ae;
  EXPECT_EQ(start({0x37, 0xf4}), -1);  // aaa: AL is B4 before its upper half goes
  EXPECT_EQ(vm.reg(rax), 0x0204u);
  EXPECT_EQ(flags(), 0x11u);
  vm.reg(rax) = 0x0af0;
  EXPECT_EQ(start({0xd5, 0x0a, 0xf4}), -1);  // aad: F0 + 64
  EXPECT_EQ(vm.reg(rax), 0x54u);
  EXPECT_EQ(flags(), 0x1u);
}

TEST_P(Legacy, WhatPopaHasPoppedBeforeItFaults) {
  for (const Vendor vendor : trapline::test::kVendors) {
    vm.cpuid = trapline::test::policy_of(vendor);
    vm.seg(Seg::ss).limit = static_cast<u32>(vm.kStack + 21);
    update_mode(vm.cpu);
    tlb_flush_all(vm.cpu);
    for (unsigned i = 0; i < 6; i++) vm.at<u32>(vm.kStack + i * 4) = 0x100 + i;
    for (const unsigned r : {rdi, rsi, rbp, rbx, rdx}) vm.reg(r) = 1;
    EXPECT_EQ(start({0x61, 0xf4}), 12);
    const bool kept = vendor == Vendor::intel;
    EXPECT_EQ(vm.reg(rdi), kept ? 0x100u : 1u);
    EXPECT_EQ(vm.reg(rbx), kept ? 0x104u : 1u);
    EXPECT_EQ(vm.reg(rdx), 1u) << "the one that faults";
  }
}

INSTANTIATE_TEST_SUITE_P(Engines, Legacy, testing::ValuesIn(trapline::test::kEngines),
                         [](const auto& of) { return std::string(of.param); });

}  // namespace
}  // namespace trapline::engine::test
