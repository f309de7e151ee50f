#include "core/history.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/crash_report.h"
#include "unit/engine/interpret_vm.h"

namespace trapline::core {
namespace {

using engine::test::InterpretVm;
using engine::test::Start;
using testing::ElementsAre;
using testing::HasSubstr;

std::vector<std::string> last(const InterpretVm& vm, std::size_t most = 64) {
  std::vector<std::string> lines;
  for (const Executed& e : executed_last(vm.cpu, most)) lines.push_back(fmt::format("{:x} {}", e.linear.raw, e.text));
  return lines;
}

TEST(History, FollowsJumpsAndEndsWithTheLastThatRetired) {
  InterpretVm vm{Start::long64};
  vm.put(0x10010, {0xff, 0xc0, 0xf4});  // inc eax; hlt
  vm.run({0x90, 0xeb, 0x0d});           // nop; jmp 0x10010
  EXPECT_THAT(last(vm), ElementsAre("10000 nop", "10001 jmp 0x0000000000010010", "10010 inc eax", "10012 hlt"));
}

// What stands in the middle of a block and faults has not retired; what stood behind it never ran.
TEST(History, EndsBeforeTheInstructionThatFaults) {
  InterpretVm vm{Start::long64};
  vm.cpu.idtr.limit = 0;                               // no handler: triple fault
  vm.run({0xff, 0xc0, 0x90, 0x0f, 0x0b, 0xff, 0xc1});  // inc eax; nop; ud2; inc ecx
  EXPECT_EQ(vm.cpu.activity, cpu::Activity::shutdown);
  EXPECT_THAT(last(vm), ElementsAre("10000 inc eax", "10002 nop"));
  const std::string report = crash_report(vm.cpu, "triple fault");
  EXPECT_THAT(report, HasSubstr("  @0000000000010002  nop\n> @0000000000010003  ud2\n"));
}

TEST(History, ShowsTheHandlerBehindWhatFaulted) {
  InterpretVm vm{Start::long64};
  vm.run({0xff, 0xc0, 0x0f, 0x0b});  // inc eax; ud2
  EXPECT_THAT(last(vm), ElementsAre("10000 inc eax", "3060 hlt"));
}

TEST(History, CountsEveryRoundOfALoop) {
  InterpretVm vm{Start::long64};
  vm.reg(isa::rcx) = 1000;
  vm.run({0xff, 0xc9, 0x75, 0xfc, 0xf4});  // dec ecx; jnz -4; hlt
  const auto lines = last(vm, 5);
  EXPECT_THAT(lines, ElementsAre("10000 dec ecx", "10002 jnz 0x0000000000010000", "10000 dec ecx",
                                 "10002 jnz 0x0000000000010000", "10004 hlt"));
  EXPECT_GT(last(vm).size(), 60u);
}

TEST(History, ReadsOldBytesAsTheModeOfTheirTimeDid) {
  InterpretVm vm{Start::real16};
  vm.at<u64>(0x1008) = 0x00cf9b000000ffff;  // 32-bit code
  vm.cpu.gdtr = {0x1000, 0xf};
  // mov eax, 1; mov cr0, eax; jmp 8:0x10100 (66 EA)
  vm.put(0x10100, {0x40, 0xf4});  // inc eax in 32-bit code, REX in 64-bit code
  vm.run({0x66, 0xb8, 1, 0, 0, 0, 0x0f, 0x22, 0xc0, 0x66, 0xea, 0x00, 0x01, 0x01, 0x00, 0x08, 0x00});
  const auto lines = last(vm);
  ASSERT_EQ(lines.size(), 5u);
  EXPECT_EQ(lines[0], "10000 mov eax, 0x01");
  EXPECT_THAT(lines[2], HasSubstr("10009 jmp"));
  EXPECT_EQ(lines[3], "10100 inc eax");
  EXPECT_EQ(lines[4], "10101 hlt");
}

TEST(History, SaysWhereTheCodeIsGone) {
  InterpretVm vm{Start::long64};
  vm.put(0x401000, {0x90, 0x90, 0xff, 0xe0});  // nop; nop; jmp rax
  vm.put(0x10100, {0xf4});
  vm.reg(isa::rax) = 0x10100;
  vm.reg(isa::rdx) = 0x401000;
  vm.run({0xff, 0xe2});  // jmp rdx
  vm.set_page(0x401000, 0);
  EXPECT_THAT(last(vm), ElementsAre("10000 jmp rdx", "401000 (3 instructions: this is no code now)", "10100 hlt"));
}

TEST(History, IsEmptyBeforeTheFirstInstruction) {
  InterpretVm vm{Start::long64};
  EXPECT_TRUE(last(vm).empty());
  EXPECT_THAT(describe(vm.cpu), HasSubstr("> @0000000000010000"));
}

}  // namespace
}  // namespace trapline::core
