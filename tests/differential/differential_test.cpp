// The differential tester itself: does it see what it should see? And a share of its work that every test run does; the
// rest is `make fuzz`.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstring>
#include <memory>
#include <string>

#include "engine/registry.h"
#include "fuzz/fuzz.h"
#include "fuzz/guest.h"
#include "fuzz/lenient.h"
#include "fuzz/native.h"
#include "support/engines.h"

namespace trapline::fuzz {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

using isa::CodeSize;

const AllForms& all_forms() {
  static const AllForms f;
  return f;
}
const Forms& forms() { return all_forms().of(CodeSize::bits64); }

Program program_of(std::initializer_list<std::initializer_list<u8>> instructions, u64 seed = 1) {
  Program p;
  make_program(all_forms(), seed, Extent::of_host(), p);  // for its initial state
  p.items.clear();
  p.initial.regs.rflags = 0x202;
  for (const auto& bytes : instructions) {
    Item item;
    item.length = static_cast<u8>(bytes.size());
    std::copy(bytes.begin(), bytes.end(), item.bytes.begin());
    p.items.push_back(item);
  }
  return p;
}

class Differential : public ::testing::Test {
 protected:
  void SetUp() override {
    auto n = Native::start();
    ASSERT_TRUE(n) << n.error();
    native_ = std::move(*n);
    auto g = Guest::make("interpret");
    ASSERT_TRUE(g) << g.error();
    guest_ = std::move(*g);
  }
  // Both sides; the tests look at either and at what differs.
  void run(const Program& p) {
    const std::vector<const Program*> one{&p};
    native_->submit(one);
    native_->collect();
    guest_->load(one);
    guest_->run(p, 0, *engine_);
  }
  const Outcome& native() const { return native_->outcome(0); }
  const Outcome& engine() const { return *engine_; }
  std::vector<std::string> differing(const Program& p) const {
    return differences(native(), engine(), Extent::of_host(), lenient_at(p, 0, native()));
  }

  std::unique_ptr<Native> native_;
  std::unique_ptr<Guest> guest_;
  std::unique_ptr<Outcome> engine_ = std::make_unique<Outcome>();
};

TEST_F(Differential, AWholeSequenceEndsWithTheBreakpointBehindIt) {
  const Program p = program_of({{0x48, 0xff, 0xc0}, {0x48, 0x89, 0xc1}});  // inc rax; mov rcx, rax
  run(p);
  EXPECT_EQ(name_of(native().ending), "#BP");
  EXPECT_EQ(native().state.regs.rip, place::code + 7);
  EXPECT_EQ(native().state.regs.gpr[1], p.initial.regs.gpr[0] + 1);
  EXPECT_THAT(differing(p), ::testing::IsEmpty());
}

TEST_F(Differential, EveryFaultIsSeenOnBothSides) {
  struct Case {
    std::initializer_list<u8> bytes;
    const char* ending;
    u64 rsi = place::data, flags = 0x202;
  };
  for (const Case& c : {
           Case{{0x0f, 0x0b}, "#UD"},
           Case{{0xf4}, "#GP(0x0)"},
           Case{{0xcd, 0x21}, "#GP(0x10a)"},
           Case{{0x31, 0xc9, 0xf7, 0xf1}, "#DE"},                                         // xor ecx,ecx; div ecx
           Case{{0x8b, 0x06}, "#PF(0x4) at 0x10102000", place::data + place::data_size},  // mov eax,[rsi]
           Case{{0x48, 0x8b, 0x06}, "#PF(0x4) at 0x10102000", place::data + place::data_size - 4},
           Case{{0x89, 0x06}, "#PF(0x7) at 0x10200000", place::read_only},
           Case{{0x8b, 0x06}, "#GP(0x0)", u64{1} << 60},
           Case{{0x0f, 0x28, 0x06}, "#GP(0x0)", place::data + 8},  // movaps
           Case{{0x8b, 0x06}, "#AC(0x0)", place::data + 1, 0x40202},
           Case{{0xff, 0xe6}, "#PF(0x14) at 0x5000", 0x5000},  // jmp rsi
           Case{{0xff, 0xe6}, "#PF(0x15) at 0x10100000"},
           Case{{0xf1}, "#DB"},
       }) {
    Program p = program_of({c.bytes});
    p.initial.regs.gpr[6] = c.rsi;
    p.initial.regs.rflags = c.flags;
    run(p);
    EXPECT_EQ(name_of(native().ending), c.ending);
    EXPECT_EQ(name_of(engine().ending), c.ending);
    EXPECT_THAT(differing(p), ::testing::IsEmpty()) << listing(p, place::code);
  }
}

// The stack comes before a target that is not canonical. A prefix that means nothing here takes another handler.
TEST_F(Differential, CallsLookAtTheStackBeforeTheirTarget) {
  for (const char* name : test::kEngines) {
    if (!engine::find_engine(name)->missing().empty()) continue;
    auto guest = Guest::make(name);
    ASSERT_TRUE(guest) << guest.error();
    for (const u64 rsp : {place::data, place::stack + 64}) {
      Program plain = program_of({{0xff, 0xd6}}), prefixed = program_of({{0x36, 0xff, 0xd6}});  // call rsi
      for (Program* p : {&plain, &prefixed}) {
        p->initial.regs.gpr[isa::rsi] = u64{1} << 60;
        p->initial.regs.gpr[isa::rsp] = rsp;
        (*guest)->load({p});
        (*guest)->run(*p, 0, *engine_);
        EXPECT_EQ(name_of(engine().ending), rsp == place::data ? "#PF(0x6) at 0x100ffff8" : "#GP(0x0)") << name;
        EXPECT_EQ(engine().state.regs.gpr[isa::rsp], rsp) << name;
        EXPECT_EQ(engine().state.regs.rip, place::code) << name;
      }
    }
  }
}

TEST_F(Differential, VectorAndX87StateTravelBothWays) {
  Program p = program_of({{0x0f, 0x58, 0xc1}, {0xd8, 0xc1}});  // addps xmm0, xmm1; fadd st0, st1
  p.initial.regs.mxcsr = 0x1f80;
  run(p);
  EXPECT_NE(std::memcmp(native().state.regs.zmm[0], p.initial.regs.zmm[0], 16), 0);
  EXPECT_EQ(std::memcmp(native().state.regs.zmm[5], p.initial.regs.zmm[5], 16), 0);
  EXPECT_THAT(differing(p), ::testing::IsEmpty());
}

// The engine's side alone: whether the host has the other depends on its kernel.
TEST_F(Differential, CodeOfOtherSizesIsEntered) {
  for (const CodeSize size : {CodeSize::bits32, CodeSize::bits16}) {
    const bool narrow = size == CodeSize::bits16;
    // inc eax; push cs; mov ecx, [ebx]
    Program p = narrow ? program_of({{0x66, 0x40}, {0x66, 0x0e}, {0x66, 0x67, 0x8b, 0x0b}})
                       : program_of({{0x40}, {0x0e}, {0x8b, 0x0b}});
    p.size = size;
    drop_upper_halves(p.initial.regs);
    p.initial.regs.gpr[isa::rax] = 0xffffffff;
    p.initial.regs.gpr[isa::rbx] = place::data;
    p.initial.regs.gpr[isa::rsp] = place::stack + 64;
    const std::size_t slot = place::batch - 1;  // where 16 bits do not reach from the first byte of all code
    const std::vector<const Program*> all(place::batch, &p);
    guest_->load(all);
    guest_->run(p, slot, *engine_);
    const Registers& r = engine().state.regs;
    EXPECT_EQ(name_of(engine().ending), "#BP");
    EXPECT_EQ(code_base(size, slot) + r.rip, code_at(slot) + (narrow ? 9 : 5));
    EXPECT_EQ(r.gpr[isa::rax], 0u);
    EXPECT_EQ(r.gpr[isa::rsp], place::stack + 60);
    EXPECT_EQ(r.gpr[isa::rcx], *reinterpret_cast<const u32*>(p.initial.memory.data));
    u16 cs;
    std::memcpy(&cs, engine().state.memory.stack + 60, 2);
    EXPECT_EQ(cs, narrow ? code16_selector(slot) : 0x23);
    if (!native_->runs(size)) continue;
    native_->submit(all);
    native_->collect();
    EXPECT_THAT(differences(native_->outcome(slot), engine(), Extent::of_host(), {}), ::testing::IsEmpty());
  }
}

TEST_F(Differential, ALoopIsATimeOutOnBothSides) {
  const Program p = program_of({{0xeb, 0xfe}});
  run(p);
  EXPECT_EQ(name_of(native().ending), "time-out");
  EXPECT_EQ(name_of(engine().ending), "time-out");
}

TEST_F(Differential, ALoopIsATimeOutOfCodeThatDoesNotCount) {
  SKIP_UNLESS_OFFERED("translate");
  auto guest = Guest::make("translate", false);
  ASSERT_TRUE(guest) << guest.error();
  const Program loop = program_of({{0xeb, 0xfe}}), whole = program_of({{0x90}});
  const std::vector<const Program*> both{&loop, &whole};
  (*guest)->load(both);
  (*guest)->run(loop, 0, *engine_);
  EXPECT_EQ(name_of(engine().ending), "time-out");
  (*guest)->run(whole, 1, *engine_);  // the kick is not left for what runs next
  EXPECT_EQ(name_of(engine().ending), "#BP");
}

TEST_F(Differential, SystemCallsKillTheChildAndNothingElse) {
  Program p = program_of({{0x0f, 0x05}});
  p.initial.regs.gpr[0] = 39;  // getpid
  run(p);
  EXPECT_EQ(name_of(native().ending), "process died");
  EXPECT_EQ(native_->restarts(), 1u);
  run(program_of({{0x90}}));
  EXPECT_EQ(name_of(native().ending), "#BP");
}

TEST_F(Differential, EveryKindOfDifferenceIsNamed) {
  const Program p = program_of({{0x90}});
  run(p);
  const auto after = [&](auto change) {
    Outcome changed = engine();
    change(changed);
    EXPECT_FALSE(equal(native(), changed, Extent::of_host()));
    return differences(native(), changed, Extent::of_host(), {});
  };
  EXPECT_THAT(after([](Outcome& o) { o.state.regs.gpr[11] ^= 1; }), Contains(HasSubstr("r11")));
  EXPECT_THAT(after([](Outcome& o) { o.state.regs.rflags ^= 0x10; }), Contains(HasSubstr("rflags")));
  EXPECT_THAT(after([](Outcome& o) { o.state.regs.zmm[3][15] ^= 1; }), Contains(HasSubstr("zmm3")));
  EXPECT_THAT(after([](Outcome& o) { o.state.regs.mxcsr ^= 1; }), Contains(HasSubstr("mxcsr")));
  EXPECT_THAT(after([](Outcome& o) { o.state.regs.x87[32 + 16 * 7 + 9] ^= 1; }), Contains(HasSubstr("st7")));
  EXPECT_THAT(after([](Outcome& o) { o.state.memory.data[4097] ^= 1; }), Contains(HasSubstr("data 0x10101000")));
  EXPECT_THAT(after([](Outcome& o) { o.state.memory.stack[1] ^= 1; }), Contains(HasSubstr("stack 0x10300000")));
  EXPECT_THAT(after([](Outcome& o) { o.ending.vector = 6; }), Contains(HasSubstr("ended  host #BP   engine #UD")));
}

TEST(Generator, IsDeterministicAndSeedsDiffer) {
  Program a, b, c;
  const Extent extent = Extent::of_host();
  make_program(all_forms(), 42, extent, a);
  make_program(all_forms(), 42, extent, b);
  make_program(all_forms(), 43, extent, c);
  EXPECT_EQ(listing(a, place::code), listing(b, place::code));
  EXPECT_EQ(std::memcmp(&a.initial, &b.initial, sizeof a.initial), 0);
  EXPECT_NE(std::memcmp(&a.initial, &c.initial, sizeof a.initial), 0);
}

TEST(Generator, DrawsCodeOfEverySizeThatTheHostRuns) {
  Extent extent = Extent::of_host();
  extent.code32 = extent.code16 = true;
  unsigned drawn[9] = {};
  for (u64 seed = 0; seed < 400; seed++) {
    Program p;
    make_program(all_forms(), seed, extent, p);
    drawn[static_cast<u8>(p.size)]++;
    for (const Item& item : p.items) {
      Decoded d;
      if (!decode(item.bytes.data(), item.length, d, p.size)) continue;
      EXPECT_EQ(d.insn.length, item.length);
    }
    if (p.size == CodeSize::bits64) continue;
    for (unsigned r = 0; r < 8; r++) EXPECT_LE(p.initial.regs.gpr[r], 0xffffffffu);
  }
  EXPECT_GT(drawn[8], 200u);
  EXPECT_GT(drawn[4], 40u);
  EXPECT_GT(drawn[2], 10u);
  for (const auto& [size, mnemonic] :
       {std::pair{CodeSize::bits32, ZYDIS_MNEMONIC_DAA}, std::pair{CodeSize::bits16, ZYDIS_MNEMONIC_PUSHA},
        std::pair{CodeSize::bits32, ZYDIS_MNEMONIC_BOUND}, std::pair{CodeSize::bits64, ZYDIS_MNEMONIC_MOVSXD}}) {
    bool found = false;
    for (const Extension& e : all_forms().of(size).extensions())
      for (const auto& group : e.by_mnemonic) found |= group.front().mnemonic == mnemonic;
    EXPECT_TRUE(found) << ZydisMnemonicGetString(mnemonic);
  }
}

TEST(Generator, KnowsEveryExtension) {
  std::vector<std::string> names;
  for (const Extension& e : forms().extensions()) names.push_back(e.name);
  for (const char* name :
       {"integer",  "privileged",  "X87",         "MMX",         "SSE",   "SSE2",  "SSE3",    "SSSE3",     "SSE4",
        "AVX",      "AVX2",        "AVX2 gather", "FMA",         "F16C",  "AES",   "VAES",    "PCLMULQDQ", "SHA",
        "GFNI",     "BMI1",        "BMI2",        "ADX",         "LZCNT", "MOVBE", "AVX512F", "AVX512BW",  "AVX512DQ",
        "AVX512CD", "AVX512_VBMI", "AVX512_VNNI", "AVX512_FP16", "SSE4A", "XSAVE"})
    EXPECT_THAT(names, Contains(name));
}

// What a feature bit of the host's does not announce is drawn seldom, whatever else of its kind there is.
TEST(Generator, DrawsByTheHostsOwnFeatureBits) {
  for (const Extension& e : forms().extensions()) {
    if (e.name == "AVX512_FP16") {
      EXPECT_EQ(e.weight > 1, __builtin_cpu_supports("avx512fp16") != 0);
    }
    if (e.name == "AVX512_VP2INTERSECT") {
      EXPECT_EQ(e.weight > 1, __builtin_cpu_supports("avx512vp2intersect") != 0);
    }
    if (e.name == "SSE4A") {
      EXPECT_EQ(e.weight > 1, __builtin_cpu_supports("sse4a") != 0);
    }
    if (e.name == "AVX512ER") {
      EXPECT_EQ(e.weight, 1u);
    }
  }
}

TEST(Generator, LeavesOutWaysOutOfTheSandbox) {
  for (const auto& bytes : {std::vector<u8>{0x0f, 0x05},
                            {0x0f, 0x34},
                            {0xcd, 0x80},
                            {0x0f, 0x01, 0xc1},
                            {0x0f, 0xa2},
                            {0x8e, 0xe8},
                            {0x64, 0x8b, 0x00}}) {
    std::vector<u8> padded = bytes;
    padded.resize(16);
    Decoded d;
    ASSERT_TRUE(decode(padded.data(), padded.size(), d));
    EXPECT_FALSE(admissible(d)) << ZydisMnemonicGetString(d.insn.mnemonic);
  }
}

TEST(Layout, BranchesAndRipRelativeOperandsFollowTheirTargets) {
  std::vector<Item> items(3);
  items[0].bytes = {0xeb, 0};
  items[0].length = 2;
  items[0].fix = Item::Fix::branch;
  items[0].fix_offset = items[0].fix_bytes = 1;
  items[0].target = 2;
  items[1].bytes = {0x90};
  items[1].length = 1;
  items[2].bytes = {0x8b, 0x05};
  items[2].length = 6;
  items[2].fix = Item::Fix::rip;
  items[2].fix_offset = 2;
  items[2].fix_bytes = 4;
  items[2].target = 0x2000;
  EXPECT_THAT(layout(items, 0x1000), ::testing::ElementsAre(0xeb, 1, 0x90, 0x8b, 0x05, 0xf7, 0x0f, 0, 0, 0xcc));
}

TEST(Fuzz, UnknownEnginesAreRefusedByName) {
  FuzzOptions options;
  options.engine = "none-such";
  const auto result = run_fuzz(options);
  ASSERT_FALSE(result);
  EXPECT_THAT(result.error(), testing::StartsWith("fuzz: --engine none-such: no such engine"));
}

// The seed is fixed: a test run depends on nothing outside it.
void two_hundred_thousand(const char* engine, bool uncounted) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "the sanitizer's shadow is mapped where stray accesses of sequences should fault";
#endif
  SKIP_UNLESS_OFFERED(engine);
  FuzzOptions options;
  options.engine = engine;
  options.uncounted = uncounted;
  options.seed = 1;
  options.seed_given = true;
  options.count = 200'000;
  options.minimize = true;
  const auto result = run_fuzz(options);
  ASSERT_TRUE(result) << result.error();
  EXPECT_EQ(*result, no_difference);
}

class FuzzEngine : public ::testing::TestWithParam<const char*> {};

TEST_P(FuzzEngine, TwoHundredThousandInstructionsWithoutADifference) { two_hundred_thousand(GetParam(), false); }

TEST(FuzzTranslate, TheSameWithoutCounting) { two_hundred_thousand("translate", true); }

INSTANTIATE_TEST_SUITE_P(Engines, FuzzEngine, testing::ValuesIn(test::kEngines),
                         [](const testing::TestParamInfo<const char*>& engine) { return std::string{engine.param}; });

}  // namespace
}  // namespace trapline::fuzz
