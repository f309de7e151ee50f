// Operands over the end of what 32-bit addresses reach, in 64-bit mode: the address of each access is cut, and what one
// access reaches goes on past 4 GiB.
#include "interpret_vm.h"
#include "support/vendors.h"

namespace trapline::engine::test {
namespace {

using namespace isa;

constexpr u64 kEnd = u64{1} << 32;  // the first address that 32 bits do not reach

class AddressSize : public testing::TestWithParam<isa::Vendor> {
 protected:
  // Three pages that can be told apart: the last below 4 GiB, the first above, and the one at 0 where a cut address
  // comes to.
  static constexpr u64 kBelow = 0x600000, kAbove = 0x601000, kZero = 0, kTablesBelow = 0x94000, kTablesAbove = 0x96000;

  AddressSize() {
    vm.cpuid = trapline::test::policy_of(GetParam());
    vm.cpu.cr4 |= cr4::osxsave;
    vm.cpu.xcr0 = vm.cpuid.xcr0_allowed();
    map(kEnd - kPageSize, kBelow, kTablesBelow);
    map(kEnd, kAbove, kTablesAbove);
    std::memset(&vm.at<u8>(kBelow), 0x11, kPageSize);
    std::memset(&vm.at<u8>(kAbove), 0x22, kPageSize);
    std::memset(&vm.at<u8>(kZero), 0x33, kPageSize);
    for (unsigned i = 0; i < 64; i++) vm.cpu.vec.zmm[1][i] = static_cast<u8>(0x80 + i);
    std::memset(vm.cpu.vec.zmm[2], 0xff, 64);
    vm.cpu.vec.k[1] = ~u64{0};
  }
  void map(u64 gva, u64 gpa, u64 tables) {
    vm.at<u64>(vm.kTables + 0x1000 + (gva >> 30 & 511) * 8) = tables | 3;
    vm.at<u64>(tables + (gva >> 21 & 511) * 8) = (tables + 0x1000) | 3;
    vm.at<u64>(tables + 0x1000 + (gva >> 12 & 511) * 8) = gpa | 3;
  }
  // With RDI = the end - `before` as its 32-bit address; HLT is added.
  int run(u64 before, std::vector<int> code) {
    vm.reg(rdi) = (u64{0xdead} << 32) | (kEnd - before);
    u64 at = code_ += 64;  // where nothing is decoded yet
    vm.cpu.rip = at, vm.cpu.activity = Activity::running;
    for (const int byte : code) vm.at<u8>(at++) = static_cast<u8>(byte);
    vm.at<u8>(at) = 0xf4;
    vm.run();
    return vm.vector();
  }
  std::vector<u8> bytes(u64 gpa, unsigned n) { return {&vm.at<u8>(gpa), &vm.at<u8>(gpa) + n}; }
  std::vector<u8> of_vector(unsigned reg, unsigned first, unsigned n) {
    const u8* from = vm.cpu.vec.zmm[reg] + first;
    return {from, from + n};
  }
  InterpretVm vm{Start::long64};
  u64 code_ = InterpretVm::kCode;
};

using Bytes = std::vector<u8>;

TEST_P(AddressSize, MaskedStoresGoOnPastTheEnd) {
  if (!vm.cpuid.has("avx512bw") || !vm.cpuid.has("avx512_vbmi2")) GTEST_SKIP() << "the host lacks AVX-512";
  const std::vector<std::vector<int>> stores = {
      {0x67, 0x62, 0xf1, 0x7f, 0x49, 0x7f, 0x0f},  // vmovdqu8 [edi]{k1}, zmm1
      {0x67, 0x62, 0xf1, 0x7e, 0x49, 0x7f, 0x0f},  // vmovdqu32 [edi]{k1}, zmm1
      {0x67, 0x62, 0xf2, 0x7d, 0x49, 0x63, 0x0f},  // vpcompressb [edi]{k1}, zmm1
      {0x67, 0x62, 0xf2, 0x7d, 0x49, 0x8b, 0x0f},  // vpcompressd [edi]{k1}, zmm1
  };
  for (const auto& store : stores) {
    std::memset(&vm.at<u8>(kAbove), 0x22, kPageSize);
    ASSERT_EQ(run(16, store), -1);
    EXPECT_EQ(bytes(kBelow + kPageSize - 16, 16), of_vector(1, 0, 16));
    EXPECT_EQ(bytes(kAbove, 48), of_vector(1, 16, 48));
    EXPECT_EQ(bytes(kZero, 1), Bytes{0x33});
  }
}

TEST_P(AddressSize, MaskedLoadsGoOnPastTheEnd) {
  if (!vm.cpuid.has("avx512bw") || !vm.cpuid.has("avx512_vbmi2")) GTEST_SKIP() << "the host lacks AVX-512";
  const std::vector<std::vector<int>> loads = {
      {0x67, 0x62, 0xf1, 0x7f, 0x49, 0x6f, 0x0f},  // vmovdqu8 zmm1{k1}, [edi]
      {0x67, 0x62, 0xf1, 0x7e, 0x49, 0x6f, 0x0f},  // vmovdqu32 zmm1{k1}, [edi]
      {0x67, 0x62, 0xf2, 0x7d, 0x49, 0x62, 0x0f},  // vpexpandb zmm1{k1}, [edi]
      {0x67, 0x62, 0xf2, 0x7d, 0x49, 0x89, 0x0f},  // vpexpandd zmm1{k1}, [edi]
  };
  for (const auto& load : loads) {
    std::memset(vm.cpu.vec.zmm[1], 0, 64);
    ASSERT_EQ(run(16, load), -1);
    EXPECT_EQ(of_vector(1, 0, 16), Bytes(16, 0x11));
    EXPECT_EQ(of_vector(1, 16, 48), Bytes(48, 0x22));
  }
}

TEST_P(AddressSize, SignMaskedMovesGoOnPastTheEnd) {
  if (!vm.cpuid.has("avx2")) GTEST_SKIP() << "the host lacks AVX2";
  ASSERT_EQ(run(16, {0x67, 0xc4, 0xe2, 0x6d, 0x2e, 0x0f}), -1);  // vmaskmovps [edi], ymm2, ymm1
  EXPECT_EQ(bytes(kAbove, 16), of_vector(1, 16, 16));
  ASSERT_EQ(run(16, {0x67, 0xc4, 0xe2, 0xed, 0x8e, 0x0f}), -1);  // vpmaskmovq [edi], ymm2, ymm1
  EXPECT_EQ(bytes(kAbove, 16), of_vector(1, 16, 16));
  std::memset(&vm.at<u8>(kAbove), 0x22, kPageSize);
  ASSERT_EQ(run(16, {0x67, 0xc4, 0xe2, 0x6d, 0x2c, 0x0f}), -1);  // vmaskmovps ymm1, ymm2, [edi]
  EXPECT_EQ(of_vector(1, 16, 16), Bytes(16, 0x22));
  EXPECT_EQ(bytes(kZero, 1), Bytes{0x33});
}

// The fault of an element past the end names its own address.
TEST_P(AddressSize, ElementsPastTheEndFaultThere) {
  if (!vm.cpuid.has("avx512bw")) GTEST_SKIP() << "the host lacks AVX-512";
  vm.at<u64>(kTablesAbove + 0x1000) = 0;
  tlb_flush_all(vm.cpu);
  ASSERT_EQ(run(16, {0x67, 0x62, 0xf1, 0x7e, 0x49, 0x6f, 0x0f}), 14);
  EXPECT_EQ(vm.cpu.cr2, kEnd);
  vm.cpu.vec.k[1] = 0xf;
  vm.reg(rsp) = vm.kStack;
  EXPECT_EQ(run(16, {0x67, 0x62, 0xf1, 0x7e, 0x49, 0x6f, 0x0f}), -1);
}

// The address of each element is cut; the element goes on.
TEST_P(AddressSize, GathersCutTheAddressOfEachElement) {
  if (!vm.cpuid.has("avx2")) GTEST_SKIP() << "the host lacks AVX2";
  auto* indices = reinterpret_cast<u32*>(vm.cpu.vec.zmm[3]);
  for (u32 i = 0; i < 4; i++) indices[i] = i * 2;
  ASSERT_EQ(run(2, {0x67, 0xc4, 0xe2, 0x69, 0x90, 0x0c, 0x1f}), -1);  // vpgatherdd xmm1, [edi+xmm3], xmm2
  EXPECT_EQ(of_vector(1, 0, 8), (Bytes{0x11, 0x11, 0x22, 0x22, 0x33, 0x33, 0x33, 0x33}));
}

TEST_P(AddressSize, MaskedBytesAreCutOneByOne) {
  ASSERT_EQ(run(4, {0x67, 0x66, 0x0f, 0xf7, 0xca}), -1);  // maskmovdqu xmm1, xmm2
  EXPECT_EQ(bytes(kBelow + kPageSize - 4, 4), of_vector(1, 0, 4));
  EXPECT_EQ(bytes(kZero, 12), of_vector(1, 4, 12));
  EXPECT_EQ(bytes(kAbove, 1), Bytes{0x22});
}

TEST_P(AddressSize, TenBytesOfTheX87AreEightAndTwo) {
  ASSERT_EQ(run(8, {0xdb, 0xe3, 0xd9, 0xe8, 0x67, 0xdb, 0x3f}), -1);  // fninit; fld1; fstp tword [edi]
  EXPECT_EQ(bytes(kBelow + kPageSize - 1, 1), Bytes{0x80});
  EXPECT_EQ(bytes(kZero, 3), (Bytes{0xff, 0x3f, 0x33}));
  EXPECT_EQ(bytes(kAbove, 1), Bytes{0x22});
  // fld tword [edi]; fadd st0, st0; fstp tword [rsp]
  ASSERT_EQ(run(8, {0x67, 0xdb, 0x2f, 0xd8, 0xc0, 0xdb, 0x3c, 0x24}), -1);
  EXPECT_EQ(bytes(vm.reg(rsp), 10), (Bytes{0, 0, 0, 0, 0, 0, 0, 0x80, 0x00, 0x40}));
  // The first access goes on: seven bytes below, one above, the last two from 1.
  ASSERT_EQ(run(7, {0xd9, 0xe8, 0x67, 0xdb, 0x3f}), -1);
  EXPECT_EQ(bytes(kAbove, 2), (Bytes{0x80, 0x22}));
  EXPECT_EQ(bytes(kZero + 1, 2), (Bytes{0xff, 0x3f}));
}

TEST_P(AddressSize, ImagesGoOnAtZero) {
  ASSERT_EQ(run(32, {0x67, 0x0f, 0xae, 0x07}), -1);  // fxsave [edi]
  EXPECT_EQ(bytes(kAbove, 1), Bytes{0x22});
  EXPECT_NE(bytes(kZero, 128), Bytes(128, 0x33));
  std::memset(&vm.at<u8>(kZero), 0x33, kPageSize);
  ASSERT_EQ(run(4, {0x67, 0xd9, 0x37}), -1);  // fnstenv [edi]
  EXPECT_EQ(bytes(kAbove, 1), Bytes{0x22});
  EXPECT_NE(bytes(kZero, 24), Bytes(24, 0x33));
}

TEST_P(AddressSize, PartsOfPointersAreCut) {
  ASSERT_EQ(run(2, {0x67, 0x0f, 0x01, 0x07}), -1);  // sgdt [edi]
  EXPECT_EQ(bytes(kBelow + kPageSize - 2, 2), (Bytes{0x1f, 0}));
  EXPECT_EQ(bytes(kZero, 8), (Bytes{0, 0x10, 0, 0, 0, 0, 0, 0}));
  vm.cpu.gdtr = {0, 0};
  ASSERT_EQ(run(2, {0x67, 0x0f, 0x01, 0x17}), -1);  // lgdt [edi]
  EXPECT_EQ(vm.cpu.gdtr.base, 0x1000u);
  EXPECT_EQ(vm.cpu.gdtr.limit, 0x1fu);
  vm.at<u32>(kBelow + kPageSize - 4) = 0x12345678;
  vm.at<u16>(kZero) = 0x10;
  ASSERT_EQ(run(4, {0x67, 0x0f, 0xb4, 0x0f}), -1);  // lfs ecx, [edi]
  EXPECT_EQ(vm.reg(rcx), 0x12345678u);
  EXPECT_EQ(vm.seg(Seg::fs).selector, 0x10);
}

TEST_P(AddressSize, OrdinaryOperandsGoOnPastTheEnd) {
  vm.reg(rax) = 0x0807060504030201;
  ASSERT_EQ(run(4, {0x67, 0x48, 0x89, 0x07}), -1);  // mov [edi], rax
  EXPECT_EQ(bytes(kAbove, 5), (Bytes{5, 6, 7, 8, 0x22}));
  ASSERT_EQ(run(4, {0x67, 0x48, 0x8b, 0x0f}), -1);  // mov rcx, [edi]
  EXPECT_EQ(vm.reg(rcx), vm.reg(rax));
  EXPECT_EQ(bytes(kZero, 1), Bytes{0x33});
}

INSTANTIATE_TEST_SUITE_P(Vendors, AddressSize, testing::ValuesIn(trapline::test::kVendors),
                         [](const auto& tested) { return trapline::test::name_of(tested.param); });

}  // namespace
}  // namespace trapline::engine::test
