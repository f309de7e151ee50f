// What processors of the two vendors do differently, by policy; and what the host's own instruction decides, against
// it.
#include "interpret_vm.h"
#include "support/vendors.h"

namespace trapline::engine::test {
namespace {

using namespace isa;

constexpr u64 kAbsent = 0x500000;

// -- Decided by the host

struct Flags {
  const char* name;
  std::vector<int> guest;                          // on RAX, RBX, RCX
  void (*host)(u64& a, u64 b, u64 c, u64& flags);  // the same
};

#define HOST(text)                                              \
  [](u64& a, u64 b, u64 c, u64& flags) {                        \
    asm volatile("push %[f]; popfq; " text "; pushfq; pop %[f]" \
                 : "+a"(a), [f] "+r"(flags)                     \
                 : "b"(b), "c"(c)                               \
                 : "cc", "memory");                             \
  }
const Flags kFlags[] = {
    {"imul rax, rbx", {0x48, 0x0f, 0xaf, 0xc3}, HOST("imul %%rbx, %%rax")},
    {"imul eax, ebx, 77", {0x6b, 0xc3, 77}, HOST("imul $77, %%ebx, %%eax")},
    {"imul ax, bx", {0x66, 0x0f, 0xaf, 0xc3}, HOST("imul %%bx, %%ax")},
    {"rol eax, 5", {0xc1, 0xc0, 5}, HOST("rol $5, %%eax")},
    {"ror rax, 7", {0x48, 0xc1, 0xc8, 7}, HOST("ror $7, %%rax")},
    {"rol eax, 1", {0xd1, 0xc0}, HOST("rol %%eax")},
    {"ror al, cl", {0xd2, 0xc8}, HOST("ror %%cl, %%al")},
    {"rcl eax, 3", {0xc1, 0xd0, 3}, HOST("rcl $3, %%eax")},
    {"shld rax, rbx, 9", {0x48, 0x0f, 0xa4, 0xd8, 9}, HOST("shld $9, %%rbx, %%rax")},
    {"andn eax, ebx, ecx", {0xc4, 0xe2, 0x60, 0xf2, 0xc1}, HOST("andn %%ecx, %%ebx, %%eax")},
    {"bextr rax, rbx, rcx", {0xc4, 0xe2, 0xf0, 0xf7, 0xc3}, HOST("bextr %%rcx, %%rbx, %%rax")},
    {"bzhi eax, ebx, ecx", {0xc4, 0xe2, 0x70, 0xf5, 0xc3}, HOST("bzhi %%ecx, %%ebx, %%eax")},
    {"blsi rax, rbx", {0xc4, 0xe2, 0xf8, 0xf3, 0xdb}, HOST("blsi %%rbx, %%rax")},
    {"blsr eax, ebx", {0xc4, 0xe2, 0x78, 0xf3, 0xcb}, HOST("blsr %%ebx, %%eax")},
    {"blsmsk eax, ebx", {0xc4, 0xe2, 0x78, 0xf3, 0xd3}, HOST("blsmsk %%ebx, %%eax")},
};

// All arithmetic flags, the undefined ones too, are those that the host's instruction leaves: whatever they were
// before.
TEST(HostDecides, UndefinedFlags) {
  if (!__builtin_cpu_supports("bmi2")) GTEST_SKIP() << "the host lacks BMI";
  for (const Flags& f : kFlags)
    for (const u64 before : {u64{0}, u64{cpu::flag::arith}, u64{cpu::flag::of}, u64{cpu::flag::zf | cpu::flag::af}})
      for (const u64 operand : {u64{0}, u64{1}, u64{0x1234567890abcdef}, ~u64{0}, u64{0x8000000000000000}}) {
        InterpretVm vm{Start::long64};
        u64 a = operand ^ 0x5a5a, flags = before | cpu::flag::fixed;
        const u64 b = operand, c = 0x0b03;
        vm.reg(rax) = a, vm.reg(rbx) = b, vm.reg(rcx) = c;
        vm.cpu.set_rflags_raw(static_cast<u32>(flags));
        u64 at = vm.kCode;
        for (const int byte : f.guest) vm.at<u8>(at++) = static_cast<u8>(byte);
        vm.at<u8>(at) = 0xf4;
        vm.run();
        f.host(a, b, c, flags);
        EXPECT_EQ(vm.reg(rax), a) << f.name << " of " << operand;
        EXPECT_EQ(vm.cpu.rflags() & cpu::flag::arith, flags & cpu::flag::arith) << f.name << " of " << operand;
      }
}

// -- By policy

class ByVendor : public testing::TestWithParam<isa::Vendor> {
 protected:
  ByVendor() { vm.cpuid = trapline::test::policy_of(GetParam()); }
  bool amd() const { return GetParam() == isa::Vendor::amd; }
  void enable_vectors() {
    vm.cpu.cr0 = (vm.cpu.cr0 | cr0::ne) & ~u64{cr0::em};
    vm.cpu.cr4 |= cr4::osfxsr | cr4::osxmmexcpt | cr4::osxsave;
    vm.cpu.xcr0 = vm.cpuid.xcr0_allowed();
    vm.set_page(kAbsent, 0);
  }
  InterpretVm vm{Start::long64};
};

// Intel's processors have written the return address, AMD's have not; a stack that faults comes first in both.
TEST_P(ByVendor, CallToANonCanonicalAddress) {
  for (const bool stack_faults : {false, true})
    for (const std::vector<int>& call :
         {std::vector<int>{0xff, 0xd6}, {0x48, 0xff, 0xd6}, {0x36, 0xff, 0xd6}, {0xff, 0x17}}) {
      InterpretVm own{Start::long64};
      own.cpuid = trapline::test::policy_of(GetParam());
      own.reg(rsi) = own.at<u64>(own.kData) = u64{1} << 60;
      own.reg(rdi) = own.kData;
      own.at<u64>(own.kStack - 8) = 0x5555;
      if (stack_faults) own.set_page(kAbsent, 0), own.reg(rsp) = kAbsent + 8;
      // Handlers on a stack of their own (IST 1).
      own.cpu.tr.base = own.kData + 0x1000, own.cpu.tr.limit = 0x67, own.cpu.tr.usable = true;
      own.put<u64>(own.cpu.tr.base + 0x24, own.kStack - 0x1000);
      for (const unsigned v : {13u, 14u}) own.at<u8>(own.kIdt + v * 16 + 4) = 1;
      u64 at = own.kCode;
      for (const int byte : call) own.at<u8>(at++) = static_cast<u8>(byte);
      own.run();
      ASSERT_EQ(own.vector(), stack_faults ? 14 : 13);
      EXPECT_EQ(own.at<u64>(own.reg(rsp) + 8), own.kCode);
      EXPECT_EQ(own.at<u64>(own.reg(rsp) + 32), stack_faults ? kAbsent + 8 : own.kStack);
      EXPECT_EQ(own.at<u64>(own.kStack - 8), amd() || stack_faults ? 0x5555 : own.kCode + call.size());
    }
}

TEST_P(ByVendor, ShaTakesUnalignedOperands) {
  if (!vm.cpuid.has("sha_ni")) GTEST_SKIP() << "the host lacks SHA";
  enable_vectors();
  vm.reg(rdi) = vm.kData + 4;
  vm.run({0x0f, 0x38, 0xc8, 0x07, 0xf4});  // sha1nexte xmm0, [rdi]
  EXPECT_EQ(vm.vector(), amd() ? -1 : 13);
}

// MASKMOVDQU whose selected bytes exist and whose others do not.
TEST_P(ByVendor, MaskedByteStoresAcrossAMissingPage) {
  enable_vectors();
  vm.reg(rdi) = kAbsent - 8;
  for (unsigned i = 0; i < 8; i++) vm.cpu.vec.zmm[1][i] = 0x80;
  vm.run({0x66, 0x0f, 0xf7, 0xc1, 0xf4});  // maskmovdqu xmm0, xmm1
  EXPECT_EQ(vm.vector(), 14);
  EXPECT_EQ(vm.cpu.cr2, kAbsent);
}

TEST_P(ByVendor, MaskedByteStoresWhereNothingIs) {
  enable_vectors();
  vm.reg(rdi) = kAbsent;
  vm.run({0x66, 0x0f, 0xf7, 0xc1, 0xf4});  // with an empty mask
  EXPECT_EQ(vm.vector(), 14);
  EXPECT_EQ(vm.cpu.cr2, kAbsent + (amd() ? 0 : 8));
}

TEST_P(ByVendor, XsaveToAMissingPage) {
  if (!vm.cpuid.has("avx")) GTEST_SKIP() << "the host lacks AVX";
  enable_vectors();
  vm.reg(rdi) = kAbsent - 64;
  vm.reg(rax) = 7, vm.reg(rdx) = 0;
  vm.run({0x0f, 0xae, 0x27, 0xf4});  // xsave [rdi]
  ASSERT_EQ(vm.vector(), 14);
  EXPECT_EQ(vm.cpu.cr2 & ~(kPageSize - 1), kAbsent);
  if (amd()) return;
  EXPECT_EQ(vm.cpu.cr2, kAbsent - 64 + 576 + 256 - 1);
  EXPECT_EQ(vm.at<u64>(vm.reg(rsp)), 2u) << "a write";
}

// A gather whose third element faults: how its mask and data have changed.
TEST_P(ByVendor, AGatherThatFaults) {
  if (!vm.cpuid.has("avx2")) GTEST_SKIP() << "the host lacks AVX2";
  enable_vectors();
  vm.reg(rdi) = vm.kData;
  auto words = [&](unsigned reg) { return reinterpret_cast<u32*>(vm.cpu.vec.zmm[reg]); };
  for (unsigned i = 0; i < 16; i++) {
    words(0)[i] = 0xd0 + i;
    words(1)[i] = i == 2 ? static_cast<u32>(kAbsent - vm.kData) : 4 * i;
    words(2)[i] = i == 1 ? 5 : 0x80000001;
  }
  vm.at<u32>(vm.kData) = 0x1234;
  vm.run({0xc4, 0xe2, 0x69, 0x90, 0x04, 0x0f, 0xf4});  // vpgatherdd xmm0, [rdi+xmm1], xmm2
  ASSERT_EQ(vm.vector(), 14);
  EXPECT_EQ(words(0)[0], 0x1234u);
  EXPECT_EQ(words(0)[1], 0xd1u);
  EXPECT_EQ(words(2)[0], 0u);
  EXPECT_EQ(words(2)[1], 0u);
  EXPECT_EQ(words(2)[2], amd() ? 0x80000001 : 0xffffffff);
  EXPECT_EQ(words(0)[4], amd() ? 0xd4u : 0u) << "upper half of the data";
  EXPECT_EQ(words(2)[4], amd() ? 0x80000001 : 0u) << "and of the mask";
}

TEST_P(ByVendor, AlignmentOfVectorOperands) {
  if (!vm.cpuid.has("avx")) GTEST_SKIP() << "the host lacks AVX";
  struct Case {
    std::vector<int> bytes;
    unsigned offset;
    bool intel, amd;  // #AC?
  };
  const Case cases[] = {
      {{0x0f, 0x10, 0x07}, 8, false, true},  // movups xmm0, [rdi]
      {{0x0f, 0x10, 0x07}, 16, false, false},
      {{0xc5, 0xfc, 0x10, 0x07}, 16, false, false},  // vmovups ymm0: 16 are enough
      {{0xc5, 0xfc, 0x10, 0x07}, 8, false, true},
      {{0xc5, 0xfc, 0x11, 0x07}, 8, false, true},         // and to memory
      {{0xf3, 0x0f, 0x10, 0x07}, 2, true, true},          // movss
      {{0xc4, 0xe2, 0x71, 0x2c, 0x07}, 1, false, false},  // vmaskmovps: never
      {{0xc4, 0xe2, 0x79, 0x13, 0x07}, 4, false, true},   // vcvtph2ps xmm0, m64
  };
  for (const Case& c : cases) {
    InterpretVm own{Start::long64};
    own.cpuid = trapline::test::policy_of(GetParam());
    own.cpu.cr0 = (own.cpu.cr0 | cr0::am) & ~u64{cr0::em};
    own.cpu.cr4 |= cr4::osfxsr | cr4::osxsave;
    own.cpu.xcr0 = own.cpuid.xcr0_allowed();
    for (u64 entry = 0; entry < 512; entry++) {
      own.at<u64>(own.kTables + 0x2000 + entry * 8) |= 4;
      own.at<u64>(own.kTables + 0x3000 + entry * 8) |= 4;
    }
    own.at<u64>(own.kTables) |= 4;
    own.at<u64>(own.kTables + 0x1000) |= 4;
    tlb_flush_all(own.cpu);
    own.cpu.cpl = 3;
    own.cpu.sys_flags |= flag::ac;
    update_mode(own.cpu);
    own.reg(rdi) = own.kData + c.offset;
    u64 at = own.kCode;
    for (const int byte : c.bytes) own.at<u8>(at++) = static_cast<u8>(byte);
    (void)own.engine->step(own.cpu);
    const bool faulted = own.cpu.rip != own.kCode + c.bytes.size();
    EXPECT_EQ(faulted, amd() ? c.amd : c.intel) << c.bytes[0] << " " << c.offset;
  }
}

// FSTP with an unmasked exception to a page that is missing: Intel's raise the exception and touch nothing, AMD's look
// at the page first.
TEST_P(ByVendor, StoresThatFaultTwice) {
  enable_vectors();
  vm.reg(rdi) = kAbsent;
  vm.reg(rbx) = vm.kData;
  vm.at<u16>(vm.kData) = 0x340;  // nothing masked
  // fninit; fldcw [rbx]; fstp qword [rdi] (of an empty stack); hlt
  vm.run({0xdb, 0xe3, 0xd9, 0x2b, 0xdd, 0x1f, 0xf4});
  EXPECT_EQ(vm.vector(), amd() ? 14 : -1);
}

TEST_P(ByVendor, ClzeroZeroesALine) {
  for (u64 i = 0; i < 192; i++) vm.at<u8>(vm.kData + i) = 0xff;
  vm.reg(rax) = vm.kData + 0x55;
  vm.run({0x0f, 0x01, 0xfc, 0xf4});
  EXPECT_EQ(vm.vector(), amd() ? -1 : 6);
  if (!amd()) return;
  EXPECT_EQ(vm.at<u8>(vm.kData + 63), 0xff);
  for (u64 i = 64; i < 128; i++) EXPECT_EQ(vm.at<u8>(vm.kData + i), 0) << i;
  EXPECT_EQ(vm.at<u8>(vm.kData + 128), 0xff);
}

TEST_P(ByVendor, ClzerosAddressIsAsWideAsAddresses) {
  if (!amd()) GTEST_SKIP() << "AMD's alone";
  vm.at<u64>(vm.kData) = ~u64{0};
  vm.reg(rax) = u64{1} << 32 | vm.kData;
  vm.run({0x67, 0x0f, 0x01, 0xfc, 0xf4});
  EXPECT_EQ(vm.vector(), -1);
  EXPECT_EQ(vm.at<u64>(vm.kData), 0u);
}

// EFER.FFXSR: ring 0 of 64-bit mode saves and loads no XMM registers.
TEST_P(ByVendor, FastFxsave) {
  if (!amd()) GTEST_SKIP() << "AMD's alone";
  enable_vectors();
  vm.cpu.efer |= efer::ffxsr;
  vm.reg(rdi) = vm.kData;
  vm.cpu.vec.zmm[3][5] = 0x77;
  vm.at<u8>(vm.kData + 160 + 3 * 16 + 5) = 0x11;
  vm.run({0x0f, 0xae, 0x07, 0xf4});  // fxsave [rdi]
  EXPECT_EQ(vm.vector(), -1);
  EXPECT_EQ(vm.at<u8>(vm.kData + 160 + 3 * 16 + 5), 0x11);
  EXPECT_EQ(vm.at<u32>(vm.kData + 24), 0x1f80u);
  vm.cpu.activity = Activity::running;
  vm.cpu.rip = vm.kCode;
  vm.run({0x0f, 0xae, 0x0f, 0xf4});  // fxrstor
  EXPECT_EQ(vm.vector(), -1);
  EXPECT_EQ(vm.cpu.rip, vm.kCode + 4);
  EXPECT_EQ(vm.cpu.vec.zmm[3][5], 0x77);
}

INSTANTIATE_TEST_SUITE_P(Vendors, ByVendor, testing::ValuesIn(trapline::test::kVendors),
                         [](const auto& p) { return std::string{trapline::test::name_of(p.param)}; });

}  // namespace
}  // namespace trapline::engine::test
