// String instructions with 32-bit registers in 64-bit code: when the upper halves of RCX, RSI and RDI go.
#include <string>

#include "interpret_vm.h"

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
  Halves before;  // what has happened when no element has been done
};

constexpr StringOp kOps[] = {{"movsb", 0xa4, true, true, Halves::all_go},
                             {"stosb", 0xaa, false, true, Halves::all_go},
                             {"lodsb", 0xac, true, false, Halves::count_goes},
                             {"cmpsb", 0xa6, true, true, Halves::count_goes},
                             {"scasb", 0xae, false, true, Halves::count_goes}};

class StringHalves : public testing::TestWithParam<std::tuple<StringOp, int>> {
 protected:
  StringHalves() {
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
  const int prefix = std::get<1>(GetParam());
  const bool repne = prefix == 0xf2;
  InterpretVm vm{Start::long64};
};

TEST_P(StringHalves, SourceFaults) {
  if (!op.source) return;
  run(5, kAbsent, vm.kData);
  EXPECT_EQ(vm.vector(), 14);
  EXPECT_EQ(vm.cpu.cr2, kAbsent);
  expect(prefix ? op.before : Halves::all_kept, 5, kAbsent, vm.kData);
}

TEST_P(StringHalves, DestinationFaults) {
  if (!op.destination) return;
  run(5, vm.kData, kAbsent);
  EXPECT_EQ(vm.vector(), 14);
  EXPECT_EQ(vm.cpu.cr2, kAbsent);
  expect(prefix ? op.before : Halves::all_kept, 5, vm.kData, kAbsent);
}

// Which of two absent pages is reported: MOVS reads before it writes, CMPS reads ES:[RDI] first.
TEST(StringOrder, MovsBySourceCmpsByDestination) {
  for (const int opcode : {0xa4, 0xa6}) {
    InterpretVm vm{Start::long64};
    vm.set_page(kAbsent, 0);
    vm.set_page(kAbsent + 0x1000, 0);
    vm.reg(rsi) = kAbsent;
    vm.reg(rdi) = kAbsent + 0x1000;
    vm.run({opcode, 0xf4});
    EXPECT_EQ(vm.vector(), 14);
    EXPECT_EQ(vm.cpu.cr2, opcode == 0xa4 ? kAbsent : kAbsent + 0x1000);
  }
}

class RepHalves : public StringHalves {};

TEST_P(RepHalves, NothingToDo) {
  run(0, vm.kData, kAbsent);
  EXPECT_EQ(vm.vector(), -1);
  expect(op.before, 0, vm.kData, kAbsent);
}

TEST_P(RepHalves, LaterElementFaults) {
  const u64 from = op.source ? kAbsent - 2 : vm.kData, to = op.source ? vm.kData : kAbsent - 2;
  run(5, from, to);
  EXPECT_EQ(vm.vector(), 14);
  EXPECT_EQ(vm.cpu.cr2, kAbsent);
  expect(Halves::all_go, 3, op.source ? from + 2 : from, op.destination ? to + 2 : to);
}

std::string name_of(const testing::TestParamInfo<std::tuple<StringOp, int>>& p) {
  const int prefix = std::get<1>(p.param);
  return std::string(prefix == 0 ? "one_" : prefix == 0xf3 ? "rep_" : "repne_") + std::get<0>(p.param).name;
}
INSTANTIATE_TEST_SUITE_P(All, StringHalves, testing::Combine(testing::ValuesIn(kOps), testing::Values(0, 0xf3, 0xf2)),
                         name_of);
INSTANTIATE_TEST_SUITE_P(All, RepHalves, testing::Combine(testing::ValuesIn(kOps), testing::Values(0xf3, 0xf2)),
                         name_of);

}  // namespace
}  // namespace trapline::engine::test
