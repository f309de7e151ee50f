// String instructions with 32-bit registers in 64-bit code: when the upper halves of RCX, RSI and RDI go.
#include <string>

#include "interpret_vm.h"
#include "support/vendors.h"

namespace trapline::engine::test {
namespace {

using namespace isa;

constexpr u64 kUpper = 0x11111111'00000000;
constexpr u64 kAbsent = 0x500000;

enum class Halves { all_kept, count_goes, all_go };

struct StringOp {
  const char* name;
  int opcode;
  bool source, destination;
  Halves before;  // what Intel's have done when no element has been; AMD's nothing
};

void PrintTo(const StringOp& op, std::ostream* out) { *out << op.name; }

constexpr StringOp kOps[] = {{"movsb", 0xa4, true, true, Halves::all_go},
                             {"stosb", 0xaa, false, true, Halves::all_go},
                             {"lodsb", 0xac, true, false, Halves::count_goes},
                             {"cmpsb", 0xa6, true, true, Halves::count_goes},
                             {"scasb", 0xae, false, true, Halves::count_goes}};

using Case = std::tuple<StringOp, int, isa::Vendor>;

class StringHalves : public testing::TestWithParam<Case> {
 protected:
  StringHalves() {
    vm.cpuid = trapline::test::policy_of(std::get<2>(GetParam()));
    vm.set_page(kAbsent, 0);
    // CMPS and SCAS are to go on until the fault: REPE over equal bytes, REPNE over different ones.
    for (u64 i = 0; i < 0x100; i++) {
      vm.at<u8>(kAbsent - 0x100 + i) = 7;
      vm.at<u8>(vm.kData + i) = repne ? 6 : 7;
    }
    vm.reg(rax) = repne ? 6 : 7;
  }
  void run(u64 count, u64 from, u64 to) {
    vm.reg(rcx) = kUpper | count;
    vm.reg(rsi) = kUpper | from;
    vm.reg(rdi) = kUpper | to;
    if (prefix)
      vm.run({prefix, 0x67, op.opcode, 0xf4});
    else
      vm.run({0x67, op.opcode, 0xf4});
  }
  void expect(Halves halves, u64 count, u64 from, u64 to) {
    const u64 pointer = halves == Halves::all_go ? 0 : kUpper;
    EXPECT_EQ(vm.reg(rcx), count | (halves == Halves::all_kept ? kUpper : 0));
    EXPECT_EQ(vm.reg(rsi), from | (op.source ? pointer : kUpper));
    EXPECT_EQ(vm.reg(rdi), to | (op.destination ? pointer : kUpper));
  }

  const StringOp op = std::get<0>(GetParam());
  Halves before() const {
    return prefix && std::get<2>(GetParam()) == isa::Vendor::intel ? op.before : Halves::all_kept;
  }

  const int prefix = std::get<1>(GetParam());
  const bool repne = prefix == 0xf2;
  InterpretVm vm{Start::long64};
};

TEST_P(StringHalves, SourceFaults) {
  if (!op.source) return;
  run(5, kAbsent, vm.kData);
  EXPECT_EQ(vm.vector(), 14);
  EXPECT_EQ(vm.cpu.cr2, kAbsent);
  expect(before(), 5, kAbsent, vm.kData);
}

TEST_P(StringHalves, DestinationFaults) {
  if (!op.destination) return;
  run(5, vm.kData, kAbsent);
  EXPECT_EQ(vm.vector(), 14);
  EXPECT_EQ(vm.cpu.cr2, kAbsent);
  expect(before(), 5, vm.kData, kAbsent);
}

// Which of two absent pages is reported: MOVS reads before it writes, CMPS reads ES:[RDI] first on Intel's processors.
TEST(StringOrder, MovsBySourceCmpsByVendor) {
  for (const auto& [opcode, vendor] : {std::pair{0xa4, isa::Vendor::intel},
                                       {0xa4, isa::Vendor::amd},
                                       {0xa6, isa::Vendor::intel},
                                       {0xa6, isa::Vendor::amd}}) {
    InterpretVm vm{Start::long64};
    vm.cpuid = trapline::test::policy_of(vendor);
    vm.set_page(kAbsent, 0);
    vm.set_page(kAbsent + 0x1000, 0);
    vm.reg(rsi) = kAbsent;
    vm.reg(rdi) = kAbsent + 0x1000;
    vm.run({opcode, 0xf4});
    EXPECT_EQ(vm.vector(), 14);
    EXPECT_EQ(vm.cpu.cr2, opcode == 0xa6 && vendor == isa::Vendor::intel ? kAbsent + 0x1000 : kAbsent);
  }
}

class RepHalves : public StringHalves {};

TEST_P(RepHalves, NothingToDo) {
  run(0, vm.kData, kAbsent);
  EXPECT_EQ(vm.vector(), -1);
  expect(before(), 0, vm.kData, kAbsent);
}

TEST_P(RepHalves, LaterElementFaults) {
  const u64 from = op.source ? kAbsent - 2 : vm.kData, to = op.source ? vm.kData : kAbsent - 2;
  run(5, from, to);
  EXPECT_EQ(vm.vector(), 14);
  EXPECT_EQ(vm.cpu.cr2, kAbsent);
  expect(Halves::all_go, 3, op.source ? from + 2 : from, op.destination ? to + 2 : to);
}

std::string name_of(const testing::TestParamInfo<Case>& p) {
  const int prefix = std::get<1>(p.param);
  return std::string(trapline::test::name_of(std::get<2>(p.param))) +
         (prefix == 0      ? "_one_"
          : prefix == 0xf3 ? "_rep_"
                           : "_repne_") +
         std::get<0>(p.param).name;
}
INSTANTIATE_TEST_SUITE_P(All, StringHalves,
                         testing::Combine(testing::ValuesIn(kOps), testing::Values(0, 0xf3, 0xf2),
                                          testing::ValuesIn(trapline::test::kVendors)),
                         name_of);
INSTANTIATE_TEST_SUITE_P(All, RepHalves,
                         testing::Combine(testing::ValuesIn(kOps), testing::Values(0xf3, 0xf2),
                                          testing::ValuesIn(trapline::test::kVendors)),
                         name_of);

// REPE CMPS that faults or is stepped: Intel's processors show the flags from before, AMD's those of the last element.
class RepFlags : public testing::TestWithParam<isa::Vendor> {
 protected:
  static constexpr u32 kZero = cpu::flag::zf;
  RepFlags() { vm.cpuid = trapline::test::policy_of(GetParam()); }
  bool amd() const { return GetParam() == isa::Vendor::amd; }
  // REPE CMPSB over equal bytes, of which ES:RDI has only `there` left.
  void compare(u64 there) {
    vm.set_page(kAbsent, 0);
    for (u64 i = 0; i < 0x2000; i++) vm.at<u8>(vm.kData + i) = 7;
    for (u64 i = 0; i < there; i++) vm.at<u8>(kAbsent - there + i) = 7;
    vm.reg(rcx) = 0x2000;
    vm.reg(rsi) = vm.kData;
    vm.reg(rdi) = kAbsent - there;
    vm.cpu.set_rflags_raw(cpu::flag::fixed | cpu::flag::sf);
  }
  u64 pushed_flags() { return vm.at<u64>(vm.reg(rsp) + (vm.vector() == 14 ? 24 : 16)); }
  InterpretVm vm{Start::long64};
};

TEST_P(RepFlags, OfAFault) {
  for (const u64 there : {u64{1}, u64{2}, u64{0x800}}) {
    compare(there);
    vm.cpu.activity = cpu::Activity::running;
    vm.cpu.rip = vm.kCode;
    vm.run({0xf3, 0xa6, 0xf4});
    ASSERT_EQ(vm.vector(), 14);
    EXPECT_EQ(vm.reg(rcx), 0x2000 - there);
    EXPECT_EQ(pushed_flags() & cpu::flag::arith, amd() ? kZero | cpu::flag::pf : cpu::flag::sf) << there;
    EXPECT_TRUE(pushed_flags() & cpu::flag::rf);
  }
}

TEST_P(RepFlags, OfAFirstElementThatFaults) {
  compare(0);
  vm.run({0xf3, 0xa6, 0xf4});
  ASSERT_EQ(vm.vector(), 14);
  EXPECT_EQ(pushed_flags() & cpu::flag::arith, cpu::flag::sf);
}

TEST_P(RepFlags, OfAStep) {
  compare(0x10);
  vm.cpu.set_rflags_raw(cpu::flag::fixed | cpu::flag::sf | cpu::flag::tf);
  cpu::update_mode(vm.cpu);
  vm.run({0xf3, 0xa6, 0xf4});
  ASSERT_EQ(vm.vector(), 1);
  EXPECT_EQ(vm.reg(rcx), 0x1fff);
  EXPECT_EQ(pushed_flags() & cpu::flag::arith, amd() ? kZero | cpu::flag::pf : cpu::flag::sf);
  EXPECT_EQ((pushed_flags() & cpu::flag::rf) != 0, !amd());  // SDM Vol. 3B 17.3.1.1
}

INSTANTIATE_TEST_SUITE_P(Vendors, RepFlags, testing::ValuesIn(trapline::test::kVendors),
                         [](const auto& p) { return std::string{trapline::test::name_of(p.param)}; });

}  // namespace
}  // namespace trapline::engine::test
