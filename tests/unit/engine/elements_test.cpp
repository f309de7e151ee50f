// Gathers, scatters and stores of some elements: translated code does what the interpreter does, with all in reach, over
// the end of a page, and where an element is not there.
#include <cstring>
#include <random>
#include <span>

#include "engine/registry.h"
#include "interpret_vm.h"
#include "support/engines.h"
#include "support/vendors.h"

namespace trapline::engine::test {
namespace {

struct Sample {
  const char* name;
  std::vector<int> bytes;
  unsigned index_bytes = 0;
};
void PrintTo(const Sample& s, std::ostream* out) { *out << s.name; }

const Sample kSamples[] = {
    {"vgatherdps ymm0, [rdi+ymm2*4], ymm1", {0xC4, 0xE2, 0x75, 0x92, 0x04, 0x97}, 4},
    {"vpgatherqd xmm0, [rdi+ymm2*4], xmm1", {0xC4, 0xE2, 0x75, 0x91, 0x04, 0x97}, 8},
    {"vgatherqps xmm0, [rdi+xmm2*4], xmm1", {0xC4, 0xE2, 0x71, 0x93, 0x04, 0x97}, 8},
    {"vgatherdpd ymm0, [rdi+xmm2*8], ymm1", {0xC4, 0xE2, 0xF5, 0x92, 0x04, 0xD7}, 4},
    {"vpgatherqq xmm0, [rdi+xmm2+8], xmm1", {0xC4, 0xE2, 0xF1, 0x91, 0x44, 0x17, 0x08}, 8},
    {"vpgatherdd ymm8, [r10+ymm12*2+16], ymm15", {0xC4, 0x02, 0x05, 0x90, 0x44, 0x62, 0x10}, 4},
    {"vpgatherdq xmm0, [edi+xmm2*4], xmm9", {0x67, 0xC4, 0xE2, 0xB1, 0x90, 0x04, 0x97}, 4},
    {"vgatherdps zmm16{k1}, [rdi+zmm2*4]", {0x62, 0xE2, 0x7D, 0x49, 0x92, 0x04, 0x97}, 4},
    {"vgatherqps ymm17{k2}, [rdi+zmm2+64]", {0x62, 0xE2, 0x7D, 0x4A, 0x93, 0x4C, 0x17, 0x10}, 8},
    {"vpgatherqq ymm18{k3}, [rdi+ymm2*4]", {0x62, 0xE2, 0xFD, 0x2B, 0x91, 0x14, 0x97}, 8},
    {"vpgatherqd xmm19{k4}, [rdi+xmm2*4]", {0x62, 0xE2, 0x7D, 0x0C, 0x91, 0x1C, 0x97}, 8},
    {"vpscatterdd [rdi+zmm2*4]{k1}, zmm0", {0x62, 0xF2, 0x7D, 0x49, 0xA0, 0x04, 0x97}, 4},
    {"vscatterqps [rdi+zmm2*4]{k5}, ymm16", {0x62, 0xE2, 0x7D, 0x4D, 0xA3, 0x04, 0x97}, 8},
    {"vpscatterqq [r10+zmm2*2-8]{k7}, zmm17", {0x62, 0xC2, 0xFD, 0x4F, 0xA1, 0x4C, 0x52, 0xFF}, 8},
    {"vscatterdpd [edi+xmm2*4]{k6}, xmm18", {0x67, 0x62, 0xE2, 0xFD, 0x0E, 0xA2, 0x14, 0x97}, 4},
    {"maskmovdqu xmm0, xmm1", {0x66, 0x0F, 0xF7, 0xC1}},
    {"vmaskmovdqu xmm0, xmm9", {0xC4, 0xC1, 0x79, 0xF7, 0xC1}},
    {"maskmovdqu xmm0, xmm1, by EDI", {0x67, 0x66, 0x0F, 0xF7, 0xC1}},
    {"maskmovq mm0, mm1", {0x0F, 0xF7, 0xC1}},
    {"vpcompressd [rdi]{k1}, zmm0", {0x62, 0xF2, 0x7D, 0x49, 0x8B, 0x07}},
    {"vpcompressb [rdi]{k1}, ymm0", {0x62, 0xF2, 0x7D, 0x29, 0x63, 0x07}},
    {"vcompresspd [rdi]{k2}, zmm16", {0x62, 0xE2, 0xFD, 0x4A, 0x8A, 0x07}},
    {"vpexpandd zmm0{k1}, [rdi]", {0x62, 0xF2, 0x7D, 0x49, 0x89, 0x07}},
    {"vpexpandb ymm0{k1}{z}, [rdi]", {0x62, 0xF2, 0x7D, 0xA9, 0x62, 0x07}},
    {"vmaskmovps [rdi], ymm1, ymm0", {0xC4, 0xE2, 0x75, 0x2E, 0x07}},
};

constexpr u64 kArea = 0x410000, kAreaBytes = 0x4000, kMiddle = kArea + 0x1000, kAbsent = kArea + 0x2000;

enum class Where { inside, over_end, absent, not_canonical };

class Elements : public testing::TestWithParam<Sample> {
 protected:
  struct One {
    InterpretVm vm{Start::long64};
    One() {
      vm.cpu.cr0 |= cr0::ne;
      vm.cpu.cr4 |= cr4::osfxsr | cr4::osxsave;
      vm.cpu.xcr0 = vm.cpuid.xcr0_allowed();
      vm.set_page(kAbsent, 0);
    }
    std::span<u8> area() { return {&vm.at<u8>(kArea), kAreaBytes}; }
  };
  One interpreted, translated;

  void SetUp() override {
    SKIP_UNLESS_OFFERED("translate");
    translated.vm.clock.instructions = interpreted.vm.clock.instructions = false;
    translated.vm.engine =
        find_engine("translate")->make(translated.vm.cpu, translated.vm.arena, {}, {.hot_threshold = 1});
  }

  void prepare(One& one, unsigned seed, Where where) {
    std::mt19937_64 random{seed};
    Vcpu& cpu = one.vm.cpu;
    for (u8& b : one.area()) b = static_cast<u8>(random());
    for (auto& zmm : cpu.vec.zmm)
      for (u8& b : zmm) b = static_cast<u8>(random());
    for (u64& k : cpu.vec.k) k = random();
    for (const unsigned reg : {2u, 12u}) {
      for (unsigned i = 0; GetParam().index_bytes && i < 64 / GetParam().index_bytes; i++) {
        i64 index = static_cast<i64>(random() % 300) - 150;
        if (where == Where::over_end && i % 3 == 0) index = -(static_cast<i64>(random() % 3));
        if (where == Where::absent && random() % 8 == 0) index = 0x1010;
        if (where == Where::not_canonical && i == 5 % (64 / GetParam().index_bytes)) index = 0x7fffffff;
        std::memcpy(cpu.vec.zmm[reg] + i * GetParam().index_bytes, &index, GetParam().index_bytes);
      }
    }
    const u64 near = where == Where::over_end ? kMiddle - 1 - random() % 40 : kMiddle + 0x600 + random() % 64;
    const u64 base = where == Where::absent          ? kAbsent - 1 - random() % 40
                     : where == Where::not_canonical ? u64{1} << 47
                                                     : near;
    cpu.gpr[isa::rdi] = cpu.gpr[isa::r10] = base;
    cpu.gpr[isa::rsp] = one.vm.kStack;
    cpu.arith = 0x4301;
    cpu.activity = Activity::running;
    cpu.rip = one.vm.kCode;
  }

  void run(One& one) {
    u64 at = one.vm.kCode;
    for (const int b : GetParam().bytes) one.vm.at<u8>(at++) = static_cast<u8>(b);
    one.vm.at<u8>(at) = 0xF4;
    EXPECT_EQ(one.vm.run(), Exit::halted);
    x87_park(one.vm.cpu);
  }

  void compare() {
    const Vcpu &a = interpreted.vm.cpu, &b = translated.vm.cpu;
    EXPECT_EQ(interpreted.vm.vector(), translated.vm.vector());
    EXPECT_EQ(a.cr2, b.cr2);
    EXPECT_EQ(a.arith, b.arith);
    for (unsigned i = 0; i < 16; i++) EXPECT_EQ(a.gpr[i], b.gpr[i]) << i;
    for (unsigned i = 0; i < 32; i++) EXPECT_EQ(std::memcmp(a.vec.zmm[i], b.vec.zmm[i], 64), 0) << "zmm" << i;
    for (unsigned i = 0; i < 8; i++) EXPECT_EQ(a.vec.k[i], b.vec.k[i]) << "k" << i;
    EXPECT_EQ(std::memcmp(a.x87.image, b.x87.image, 160), 0);
    EXPECT_EQ(std::memcmp(interpreted.area().data(), translated.area().data(), kAreaBytes), 0);
  }

  // The second time the pages have slots.
  void expect_the_same(unsigned seed, Where where) {
    for (int time = 0; time < 2; time++) {
      for (One* one : {&interpreted, &translated}) {
        prepare(*one, seed, where);
        run(*one);
      }
      compare();
      ASSERT_FALSE(HasFailure()) << GetParam().name << ", seed " << seed << ", time " << time;
    }
  }
};

TEST_P(Elements, InPagesThatAreThere) {
  for (unsigned seed = 0; seed < 30; seed++) expect_the_same(seed, Where::inside);
  EXPECT_GT(translated.vm.cpu.count.blocks_translated, 0u);
}

TEST_P(Elements, OverTheEndOfAPage) {
  for (unsigned seed = 0; seed < 30; seed++) expect_the_same(seed, Where::over_end);
}

TEST_P(Elements, OneIsNotThere) {
  for (unsigned seed = 0; seed < 30; seed++) expect_the_same(seed, Where::absent);
}

TEST_P(Elements, AddressesThatAreNotCanonical) {
  for (unsigned seed = 0; seed < 10; seed++) expect_the_same(seed, Where::not_canonical);
}

// Data that becomes code in between: a scatter into it is seen.
TEST(ElementsIntoCode, AreSeen) {
  SKIP_UNLESS_OFFERED("translate");
  InterpretVm vm{Start::long64};
  vm.cpu.cr4 |= cr4::osfxsr | cr4::osxsave;
  vm.cpu.xcr0 = vm.cpuid.xcr0_allowed();
  if ((vm.cpu.xcr0 & 0xe6) != 0xe6) GTEST_SKIP() << "no AVX-512";
  vm.engine = find_engine("translate")->make(vm.cpu, vm.arena, {}, {.hot_threshold = 1});
  constexpr u64 kFunction = 0x420000;
  vm.put(kFunction, {0xB8, 0x11, 0, 0, 0, 0xC3});  // mov eax, 0x11; ret
  vm.reg(isa::rdi) = kFunction;
  const u32 bytes = 0x22b8;
  std::memcpy(vm.cpu.vec.zmm[0], &bytes, 4);
  std::memset(vm.cpu.vec.zmm[2], 0, 64);
  // scatter one; call rdi; mov ebx, eax; scatter again; call rdi
  vm.cpu.vec.k[1] = vm.cpu.vec.k[2] = 1;
  vm.put(vm.kCode, {0x62, 0xF2, 0x7D, 0x49, 0xA0, 0x44, 0x97, 0x40,  // vpscatterdd [rdi+zmm2*4+256]{k1}, zmm0
                    0xFF, 0xD7, 0x89, 0xC3,                          //
                    0x62, 0xF2, 0x7D, 0x4A, 0xA0, 0x04, 0x97,        // vpscatterdd [rdi+zmm2*4]{k2}, zmm0
                    0xFF, 0xD7, 0xF4});
  EXPECT_EQ(vm.run(), Exit::halted);
  EXPECT_EQ(vm.vector(), -1);
  EXPECT_EQ(vm.reg(isa::rbx), 0x11u);
  EXPECT_EQ(vm.reg(isa::rax), 0x22u);
}

INSTANTIATE_TEST_SUITE_P(Samples, Elements, testing::ValuesIn(kSamples), [](const auto& sample) {
  std::string name{sample.param.name};
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  return name;
});

}  // namespace
}  // namespace trapline::engine::test
