// XSAVE and XRSTOR in every user form against the host's own on the same state, and the checks the manual asks for.
#include "cpu/xsave.h"

#include <cpuid.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "unit/cpu/bare_vm.h"

namespace trapline::cpu {
namespace {

using namespace xsave;
namespace pte = test::pte;

constexpr u64 kGva = 0x10000, kGpa = 0x400000;
constexpr u64 kAll = 0xe7;
constexpr unsigned kArea = 4096;

bool host_has_all() {
  u32 a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & 1u << 27)) return false;
  u32 low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (low & kAll) == kAll && __get_cpuid_count(0xd, 1, &a, &b, &c, &d) && (a & 3) == 3;
}

enum class Form { xsave64, xsave, xsaveopt64, xsavec64 };

struct alignas(64) Memory {
  u8 bytes[kArea];
};

// XRSTOR64 from `in`, then one saving instruction into `out`, the process's own state kept.
void on_host(const Memory& in, Memory& out, Form form, u64 rfbm) {
  static Memory keep;
#define TRAPLINE_SAVE(insn)                                                                                       \
  asm volatile("xsave64 (%[keep])\n xrstor64 (%[in])\n mov %[rfbm], %%rax\n " insn                                \
               " (%[out])\n mov %[all], %%eax\n"                                                                  \
               "xrstor64 (%[keep])"                                                                               \
               : "=m"(out), "=m"(keep)                                                                            \
               : [keep] "r"(&keep), [in] "r"(&in), [out] "r"(&out), [rfbm] "r"(rfbm), [all] "i"(kAll), "a"(kAll), \
                 "d"(0), "m"(in)                                                                                  \
               : "memory")
  switch (form) {
    case Form::xsave64:
      TRAPLINE_SAVE("xsave64");
      break;
    case Form::xsave:
      TRAPLINE_SAVE("xsave");
      break;
    case Form::xsaveopt64:
      TRAPLINE_SAVE("xsaveopt64");
      break;
    case Form::xsavec64:
      TRAPLINE_SAVE("xsavec64");
      break;
  }
#undef TRAPLINE_SAVE
}

struct Guest {
  test::BareVm vm;
  Vcpu& cpu = vm.cpu;
  Guest() {
    vm.enter_long64();
    cpu.cr4 |= cr4::osfxsr | cr4::osxsave;
    cpu.xcr0 = kAll;
    reset_fpu(cpu);
    update_mode(cpu);
    vm.map64(kGva, kGpa, pte::p | pte::w | pte::u | pte::a | pte::d);
    cpu.gpr[isa::rbx] = kGva;
  }
  u8* memory() { return &vm.at<u8>(kGpa); }
  template <class T>
  T& field(u64 at) {
    return vm.at<T>(kGpa + at);
  }
  Outcome run(std::vector<u8> bytes, u64 rfbm = kAll) {
    isa::Insn insn;
    EXPECT_EQ(isa::decode(bytes.data(), bytes.size(), cpu.code_size(), cpu.vendor(), insn), isa::DecodeStatus::ok);
    cpu.gpr[isa::rax] = rfbm & 0xffffffff;
    cpu.gpr[isa::rdx] = rfbm >> 32;
    const Semantic s = find_fpu_semantic(insn);
    EXPECT_NE(s, nullptr);
    return s ? s(cpu, insn) : Outcome::stop;
  }
  ::testing::AssertionResult faults(std::vector<u8> bytes, Vector v, u64 rfbm = kAll) {
    if (run(std::move(bytes), rfbm) != Outcome::fault) return ::testing::AssertionFailure() << "no fault";
    if (cpu.fault.vector != v) return ::testing::AssertionFailure() << "vector " << static_cast<int>(cpu.fault.vector);
    return ::testing::AssertionSuccess();
  }
};

// With [rbx] as the operand.
const std::vector<u8> kXsave64{0x48, 0x0F, 0xAE, 0x23}, kXsave{0x0F, 0xAE, 0x23}, kXsaveopt64{0x48, 0x0F, 0xAE, 0x33},
    kXsavec64{0x48, 0x0F, 0xC7, 0x23}, kXsaves64{0x48, 0x0F, 0xC7, 0x2B}, kXrstor64{0x48, 0x0F, 0xAE, 0x2B},
    kXrstors64{0x48, 0x0F, 0xC7, 0x1B};

const std::vector<u8>& bytes_of(Form f) {
  return f == Form::xsave64 ? kXsave64 : f == Form::xsave ? kXsave : f == Form::xsaveopt64 ? kXsaveopt64 : kXsavec64;
}

// A standard-format area with random registers.
Memory random_area(std::mt19937_64& rng) {
  Memory m{};
  for (unsigned at = 0; at < kArea; at += 8) {
    const u64 v = rng();
    std::memcpy(m.bytes + at, &v, 8);
  }
  std::memset(m.bytes + kHeader, 0, 64);
  const u64 bv = rng() & kAll;
  std::memcpy(m.bytes + kHeader, &bv, 8);
  const u32 mxcsr = static_cast<u32>(rng() & 0xffff);
  std::memcpy(m.bytes + kMxcsr, &mxcsr, 4);
  for (unsigned at : {8u, 16u}) std::memset(m.bytes + at + 6, 0, 2);  // pointers stay canonical
  return m;
}

TEST(Xsave, EveryFormWritesWhatTheHostWrites) {
  if (!host_has_all()) GTEST_SKIP() << "the host lacks AVX-512 or XSAVEC";
  std::mt19937_64 rng{11};
  Guest g;
  unsigned equal = 0, total = 0;
  for (int round = 0; round < 400; round++) {
    const Memory in = random_area(rng);
    const Form form = static_cast<Form>(round % 4);
    const u64 rfbm = rng() & kAll;
    Memory host{};
    std::memset(host.bytes, 0x5a, kArea);
    std::memset(host.bytes + kHeader, 0, 64);
    std::memcpy(g.memory(), in.bytes, kArea);
    ASSERT_EQ(g.run(kXrstor64), Outcome::next) << round;
    std::memcpy(g.memory(), host.bytes, kArea);
    on_host(in, host, form, rfbm);
    if (host.bytes[28] != 0x5a)  // written: MXCSR_MASK without AMD's MM (misalignsse)
      host.bytes[30] &= ~u8{2};
    ASSERT_EQ(g.run(bytes_of(form), rfbm), Outcome::next) << round;
    total++;
    // The host may call a component in use that has its initial value; never the other way round.
    u64 host_bv, bv = g.field<u64>(kHeader);
    std::memcpy(&host_bv, host.bytes + kHeader, 8);
    EXPECT_EQ(bv & ~host_bv, 0u) << round << " form " << static_cast<int>(form);
    if (bv != host_bv) continue;
    equal++;
    for (unsigned at = 0; at < kArea; at++)
      ASSERT_EQ(g.memory()[at], host.bytes[at])
          << "byte " << at << " form " << static_cast<int>(form) << " rfbm " << rfbm;
  }
  EXPECT_GT(equal, total / 3);
}

TEST(Xsave, FormatsCarryTheSameState) {
  std::mt19937_64 rng{12};
  Guest g;
  for (int round = 0; round < 200; round++) {
    const Memory in = random_area(rng);
    std::memcpy(g.memory(), in.bytes, kArea);
    ASSERT_EQ(g.run(kXrstor64), Outcome::next);
    const VectorState vec = g.cpu.vec;
    u8 x87[kX87ImageBytes] = {}, again[kX87ImageBytes] = {};
    x87_store_image(g.cpu, x87, true);
    const bool compact = round & 1;
    ASSERT_EQ(g.run(compact ? (round & 2 ? kXsaves64 : kXsavec64) : kXsaveopt64), Outcome::next);
    if (compact) {
      EXPECT_EQ(g.field<u64>(kHeader + 8), kCompacted | kAll);
    }
    reset_fpu(g.cpu);
    ASSERT_EQ(g.run(compact && round & 2 ? kXrstors64 : kXrstor64), Outcome::next);
    x87_store_image(g.cpu, again, true);
    EXPECT_EQ(std::memcmp(&g.cpu.vec, &vec, sizeof vec), 0) << round;
    EXPECT_EQ(std::memcmp(x87, again, sizeof x87), 0) << round;
  }
}

// Over two pages the area is one piece of memory only where their frames are neighbours.
TEST(Xsave, AnAreaOverTwoPagesIsAsOneInAPage) {
  std::mt19937_64 rng{14};
  constexpr u64 kFlags = pte::p | pte::w | pte::u | pte::a | pte::d;
  constexpr u64 kNear = 0x20000, kFar = 0x30000, kSplit = 0x400;  // bytes of the area in the first page
  for (int round = 0; round < 60; round++) {
    Guest g;
    g.vm.map64(kNear, 0x500000, kFlags);
    g.vm.map64(kNear + kPageSize, 0x501000, kFlags);
    g.vm.map64(kFar, 0x510000, kFlags);
    g.vm.map64(kFar + kPageSize, 0x520000, kFlags);
    const u64 at = kPageSize - kSplit, second[] = {0x501000, 0x520000};
    const Memory in = random_area(rng);
    const std::vector<u8>& form = round % 5 == 4 ? kXsaves64 : bytes_of(static_cast<Form>(round % 5));
    const u64 rfbm = rng() & kAll;
    std::memcpy(g.memory(), in.bytes, kArea);
    ASSERT_EQ(g.run(kXrstor64), Outcome::next);
    const VectorState loaded = g.cpu.vec;
    std::memset(g.memory(), 0x5a, kArea);
    std::memset(g.memory() + kHeader, 0, 64);
    ASSERT_EQ(g.run(form, rfbm), Outcome::next);
    for (const int far : {0, 1}) {
      const u64 linear = far ? kFar : kNear;
      u8* const head = &g.vm.at<u8>((far ? 0x510000 : 0x500000) + at);
      u8* const tail = &g.vm.at<u8>(second[far]);
      for (int again = 0; again < 2; again++) {  // the second time by the look-ups of the first
        std::memset(head, 0x5a, kSplit);
        std::memset(tail, 0x5a, kPageSize);
        std::memset(head + kHeader, 0, 64);
        g.cpu.gpr[isa::rbx] = linear + at;
        ASSERT_EQ(g.run(form, rfbm), Outcome::next) << round;
        ASSERT_EQ(std::memcmp(head, g.memory(), kSplit), 0) << round << " far " << far;
        ASSERT_EQ(std::memcmp(tail, g.memory() + kSplit, kPageSize - kSplit), 0) << round << " far " << far;
        std::memcpy(head, in.bytes, kSplit);
        std::memcpy(tail, in.bytes + kSplit, kPageSize - kSplit);
        reset_fpu(g.cpu);
        ASSERT_EQ(g.run(kXrstor64), Outcome::next) << round;
        ASSERT_EQ(std::memcmp(&g.cpu.vec, &loaded, sizeof loaded), 0) << round << " far " << far;
      }
    }
  }
}

TEST(Xsave, OnlyTheRequestedComponentsChange) {
  Guest g;
  std::memset(g.cpu.vec.zmm, 0x11, sizeof g.cpu.vec.zmm);
  g.cpu.vec.k[3] = 7;
  std::memset(g.memory(), 0, kArea);
  g.field<u32>(kMxcsr) = 0x1f80;
  ASSERT_EQ(g.run(kXrstor64, bit(avx)), Outcome::next);  // XSTATE_BV is 0: AVX becomes initial
  EXPECT_EQ(g.cpu.vec.zmm[5][0], 0x11);
  EXPECT_EQ(g.cpu.vec.zmm[5][16], 0);
  EXPECT_EQ(g.cpu.vec.zmm[5][32], 0x11);
  EXPECT_EQ(g.cpu.vec.k[3], 7u);
  // XSAVE leaves the XSTATE_BV bits that were not asked for.
  g.field<u64>(kHeader) = bit(x87) | bit(zmm_hi256);
  ASSERT_EQ(g.run(kXsave64, bit(sse)), Outcome::next);
  EXPECT_EQ(g.field<u64>(kHeader), bit(x87) | bit(zmm_hi256) | bit(sse));
}

TEST(Xsave, OutsideLongModeOnlyEightRegistersTakePart) {
  Guest g;
  std::memset(g.cpu.vec.zmm, 0x22, sizeof g.cpu.vec.zmm);
  g.vm.seg(Seg::cs) = test::BareVm::flat(0xc09b);
  update_mode(g.cpu);
  ASSERT_EQ(g.cpu.mode, Mode::compat32);
  std::memset(g.memory(), 0x77, kArea);
  std::memset(g.memory() + kHeader, 0, 64);
  ASSERT_EQ(g.run(kXsave), Outcome::next);
  EXPECT_EQ(g.memory()[kXmm + 7 * 16], 0x22);
  EXPECT_EQ(g.memory()[kXmm + 8 * 16], 0x77);
  EXPECT_EQ(g.memory()[standard_offset(avx) + 127], 0x22);
  EXPECT_EQ(g.memory()[standard_offset(avx) + 128], 0x77);
  EXPECT_EQ(g.memory()[standard_offset(hi16_zmm)], 0x77);
}

TEST(Xsave, ChecksOfTheManual) {
  Guest g;
  std::memset(g.memory(), 0, kArea);
  g.field<u32>(kMxcsr) = 0x1f80;
  EXPECT_EQ(g.run(kXrstor64), Outcome::next);
  g.field<u64>(kHeader) = 1u << 9;  // not in XCR0
  EXPECT_TRUE(g.faults(kXrstor64, Vector::gp));
  g.field<u64>(kHeader) = 0;
  g.field<u64>(kHeader + 8) = 1;  // standard format with XCOMP_BV
  EXPECT_TRUE(g.faults(kXrstor64, Vector::gp));
  g.field<u64>(kHeader + 8) = 0;
  EXPECT_TRUE(g.faults(kXrstors64, Vector::gp));  // must be compacted
  g.field<u64>(kHeader + 8) = kCompacted | 3;
  g.field<u64>(kHeader) = 4;  // not in XCOMP_BV
  EXPECT_TRUE(g.faults(kXrstor64, Vector::gp));
  g.field<u64>(kHeader) = 2;
  g.field<u8>(kHeader + 63) = 1;  // reserved
  EXPECT_TRUE(g.faults(kXrstor64, Vector::gp));
  g.field<u8>(kHeader + 63) = 0;
  EXPECT_EQ(g.run(kXrstor64), Outcome::next);
  g.field<u32>(kMxcsr) = 0x10000;
  EXPECT_TRUE(g.faults(kXrstor64, Vector::gp));

  g.cpu.gpr[isa::rbx] = kGva + 32;
  EXPECT_TRUE(g.faults(kXsave64, Vector::gp));
  g.cpu.gpr[isa::rbx] = kGva + kPageSize - 1024;  // the extended part is not mapped
  EXPECT_TRUE(g.faults(kXsave64, Vector::pf));
  g.cpu.gpr[isa::rbx] = kGva;
  g.vm.set_cpl(3);
  EXPECT_TRUE(g.faults(kXsaves64, Vector::gp));
  g.vm.set_cpl(0);
  g.cpu.cr0 |= cr0::ts;
  EXPECT_TRUE(g.faults(kXsave64, Vector::nm));
  g.cpu.cr4 &= ~cr4::osxsave;
  EXPECT_TRUE(g.faults(kXsave64, Vector::ud));
}

}  // namespace
}  // namespace trapline::cpu
