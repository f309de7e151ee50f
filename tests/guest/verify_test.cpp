// How translated code is looked into: --verify, --dump, --perf-map.
//
// --verify: every freestanding guest passes under it, and translated code that is wrong is caught at its first
// execution, whatever it spoils. TRAPLINE_MISCOMPILE (engine/translate/options.h) makes it wrong.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>

#include "support/engines.h"
#include "support/process.h"
#include "support/tiny_guest.h"

namespace trapline::test {
namespace {

using std::chrono::seconds;
using testing::HasSubstr;
using testing::Not;

constexpr int kSame = 11;       // the guest's own exit code
constexpr int kDifferent = 10;  // documented

struct Bare {
  const char* guest;
  unsigned cpus;
};

void PrintTo(const Bare& b, std::ostream* out) { *out << b.guest << ", " << b.cpus << " vCPUs"; }

class VerifiedGuest : public testing::TestWithParam<Bare> {
 protected:
  void SetUp() override { SKIP_UNLESS_OFFERED("translate"); }
};

TEST_P(VerifiedGuest, IsTheSameTranslatedAndInterpreted) {
  const std::vector<std::string> argv{TRAPLINE_EXECUTABLE,
                                      "run",
                                      "--engine",
                                      "translate",
                                      "--verify",
                                      "--kernel",
                                      fmt::format("{}/{}.elf", BARE_GUESTS, GetParam().guest),
                                      "--memory",
                                      "64M",
                                      "--cpus",
                                      std::to_string(GetParam().cpus),
                                      "--timeout",
                                      "120",
                                      "--clock",
                                      "instructions"};
  const Finished vm = run(argv, {}, seconds{150});
  EXPECT_EQ(vm.code, 33) << vm.output;
  EXPECT_THAT(vm.output, HasSubstr("PASS"));
  unsigned long long instructions = 0;
  const auto at = vm.output.find("--verify: ");
  ASSERT_NE(at, std::string::npos) << vm.output;
  EXPECT_EQ(std::sscanf(vm.output.c_str() + at, "--verify: %llu instructions", &instructions), 1) << vm.output;
  EXPECT_GT(instructions, 1000u);
}

// All but the one that measures the passing of real time, which is no use at this speed.
constexpr Bare kGuests[] = {{"modes", 1},   {"faults32", 1}, {"faults64", 1},  {"paging64", 1}, {"segments", 1},
                            {"tasks", 1},   {"v86", 1},      {"syscall64", 1}, {"debug", 1},    {"interrupts", 1},
                            {"strings", 1}, {"lookups", 1},  {"smc", 1},       {"moved", 1},    {"smp", 1},
                            {"smp", 2},     {"vendor64", 1}, {"user64", 1}};
std::string name_of(const testing::TestParamInfo<Bare>& info) {
  return fmt::format("{}_{}cpu", info.param.guest, info.param.cpus);
}
INSTANTIATE_TEST_SUITE_P(Guests, VerifiedGuest, testing::ValuesIn(kGuests), name_of);

// 32-bit code from 0x100020 on.
std::vector<unsigned char> program() {
  return {
      0xbc, 0x00, 0x00, 0x20, 0x00,              // 100020  mov esp, 0x200000
      0xb9, 0x64, 0x00, 0x00, 0x00,              // 100025  mov ecx, 100
      0x31, 0xf6,                                // 10002a  xor esi, esi
      0x05, 0x11, 0x11, 0x11, 0x11,              // 10002c  again: add eax, 0x11111111 (from the magic 0x2badb002)
      0x89, 0x05, 0x00, 0x00, 0x18, 0x00,        // 100031  mov [0x180000], eax
      0x83, 0x86, 0x00, 0x01, 0x18, 0x00, 0x01,  // 100037  add dword ptr [esi + 0x180100], 1
      0x50,                                      // 10003e  push eax
      0x5a,                                      // 10003f  pop edx
      0x3d, 0x13, 0xc1, 0xbe, 0x3c,              // 100040  cmp eax, 0x3cbec113
      0xe2, 0xe5,                                // 100045  loop again
      0x90,                                      // 100047  nop
      0xbb, 0x01, 0x00, 0x00, 0x00,              // 100048  mov ebx, 1
      0x31, 0xd2,                                // 10004d  xor edx, edx
      0xf7, 0xf3,                                // 10004f  div ebx
      0xb0, 0x05,                                // 100051  mov al, 5
      0xe6, 0xf4,                                // 100053  out 0xf4, al
      0xf4, 0xeb, 0xfd,
  };
}

Finished verified(const std::vector<unsigned char>& code, const std::string& miscompile) {
  const TempFile kernel{multiboot(code)};
  Process::Options options;
  if (!miscompile.empty()) options.environment.push_back("TRAPLINE_MISCOMPILE=" + miscompile);
  return run({TRAPLINE_EXECUTABLE, "run", "--engine", "translate", "--verify", "--kernel", kernel.path(), "--memory",
              "64M", "--timeout", "60"},
             {}, seconds{90}, options);
}

// A program that runs as it is, in a cage, and may find that out (tests/guest/bare/user64.asm).
Finished program_in_a_cage(const char* what) {
  return run(
      {TRAPLINE_EXECUTABLE, "run", "--engine", "patch", "--verify", "--kernel",
       fmt::format("{}/user64.elf", BARE_GUESTS), "--append", what, "--memory", "64M", "--stats", "--timeout", "60"},
      {}, seconds{90});
}

class VerifiedCage : public testing::Test {
 protected:
  void SetUp() override { SKIP_UNLESS_OFFERED("patch"); }
};

TEST_F(VerifiedCage, DoesWhatIsInterpreted) {
  const Finished vm = program_in_a_cage("");
  EXPECT_EQ(vm.code, 33) << vm.output;
  EXPECT_THAT(vm.output, HasSubstr("PASS"));
  EXPECT_THAT(vm.output, testing::ContainsRegex("cages: system calls +20[0-9] ")) << "it was not in one";
}

// One that has memory where the stub is gets a cage with the stub elsewhere: else each access would be a stop.
TEST_F(VerifiedCage, MakesWayForTheProgram) {
  const Finished vm = run({"env", "TRAPLINE_DEBUG=direct", TRAPLINE_EXECUTABLE, "run", "--engine", "patch", "--kernel",
                           fmt::format("{}/user64.elf", BARE_GUESTS), "--memory", "64M", "--stats", "--timeout", "60"},
                          {}, seconds{90});
  EXPECT_EQ(vm.code, 33) << vm.output;
  unsigned long long faults = 0;
  const auto at = vm.output.find("cages: page faults");
  ASSERT_NE(at, std::string::npos) << vm.output;
  ASSERT_EQ(std::sscanf(vm.output.c_str() + at, "cages: page faults %llu", &faults), 1);
  EXPECT_LT(faults, 2000u);
}

// What it reads of its own text is the copy with the trap: a difference, which stands for all others.
TEST_F(VerifiedCage, ThatShowsTheProgramSomethingElseIsFound) {
  const Finished vm = program_in_a_cage("text");
  EXPECT_EQ(vm.code, kDifferent) << vm.output;
  EXPECT_THAT(vm.output, HasSubstr("interpret did not come to where it stopped"));
  EXPECT_THAT(vm.output, testing::ContainsRegex("rax +[0-9a-f]+ +f +cc "));
  EXPECT_THAT(vm.output, testing::ContainsRegex("gpa [0-9a-f]+ +0+ +0+f +0+cc "));
  EXPECT_THAT(vm.output, HasSubstr("movzx eax, byte ptr")) << "the interpreter's last steps";
  EXPECT_THAT(vm.output, HasSubstr("it ran as it is"));
}

class NeedsTranslate : public testing::Test {
 protected:
  void SetUp() override { SKIP_UNLESS_OFFERED("translate"); }
};
class Verify : public NeedsTranslate {};
class Dump : public NeedsTranslate {};
class PerfMap : public NeedsTranslate {};

TEST_F(Verify, SaysHowMuchWasTheSame) {
  const Finished vm = verified(program(), {});
  EXPECT_EQ(vm.code, kSame) << vm.output;
  EXPECT_THAT(vm.output, HasSubstr("stretches were the same"));
  EXPECT_THAT(vm.output, Not(HasSubstr("what differs")));
}

TEST_F(Verify, ReportsARegisterWithBothStatesBothCodesAndTheLineToRunAgain) {
  const Finished vm = verified(program(), "0x10002c,value");
  EXPECT_EQ(vm.code, kDifferent) << vm.output;
  EXPECT_THAT(vm.output, HasSubstr("registers or memory differ"));
  EXPECT_THAT(vm.output, testing::ContainsRegex("rax +2badb002 +3cbec113 +3bbec113"));
  EXPECT_THAT(vm.output, HasSubstr("add eax, 0x11111111"));  // the guest's code
  EXPECT_THAT(vm.output, HasSubstr("add eax, 0x10111111"));  // ours
  EXPECT_THAT(vm.output, HasSubstr("interpret:\n"));
  EXPECT_THAT(vm.output, HasSubstr("translated:\n"));
  EXPECT_THAT(vm.output, HasSubstr("again: TRAPLINE_MISCOMPILE=0x10002c,value " TRAPLINE_EXECUTABLE
                                   " run --engine translate --verify --kernel /tmp/"));
  EXPECT_THAT(vm.output, Not(HasSubstr("  rsp   ")));  // what is the same is not among what differs
}

TEST_F(Verify, SeesAWriteToTheWrongPlace) {
  const Finished vm = verified(program(), "0x100037,place");
  EXPECT_EQ(vm.code, kDifferent) << vm.output;
  EXPECT_THAT(vm.output, HasSubstr("gpa 180100"));  // not written
  EXPECT_THAT(vm.output, HasSubstr("gpa 180108"));  // written
}

TEST_F(Verify, SeesAWriteThatDidNotHappen) {
  const Finished vm = verified(program(), "0x100031,drop");
  EXPECT_EQ(vm.code, kDifferent) << vm.output;
  EXPECT_THAT(vm.output, HasSubstr("gpa 180000"));
}

TEST_F(Verify, SeesFlagsAlone) {
  const Finished vm = verified(program(), "0x100040,value");  // compares with 0x3dbec113
  EXPECT_EQ(vm.code, kDifferent) << vm.output;
  EXPECT_THAT(vm.output, HasSubstr("rflags"));
}

TEST_F(Verify, SeesAnotherWay) {
  const Finished vm = verified(program(), "0x100045,drop");
  EXPECT_EQ(vm.code, kDifferent) << vm.output;
  EXPECT_THAT(vm.output, HasSubstr("  rip  "));
}

TEST_F(Verify, SeesAFaultThatDidNotHappen) {
  auto code = program();
  code[0x49 - 0x20] = 0;  // mov ebx, 0: the division faults, and there is no handler
  const Finished right = verified(code, {});
  EXPECT_EQ(right.code, 4) << right.output;  // a triple fault
  const Finished wrong = verified(code, "0x10004f,drop");
  EXPECT_EQ(wrong.code, kDifferent) << wrong.output;
  EXPECT_THAT(wrong.output, HasSubstr("interpret raised an exception, the translated code did not"));
}

// The page of tests of the guest that goes through 4-level paging; nothing but the entry itself is wrong.
Finished paging_with(const char* wrong) {
  Process::Options options;
  options.environment.push_back(fmt::format("TRAPLINE_MISCOMPILE=0x40000000,{}", wrong));
  return run({TRAPLINE_EXECUTABLE, "run", "--engine", "translate", "--verify", "--kernel", BARE_GUESTS "/paging64.elf",
              "--memory", "64M", "--timeout", "60", "--clock", "instructions"},
             {}, seconds{90}, options);
}

TEST_F(Verify, SeesAPageThatAnotherModeMayNotReach) {
  const Finished vm = paging_with("reach");
  EXPECT_EQ(vm.code, kDifferent) << vm.output;
  EXPECT_THAT(vm.output, HasSubstr("--verify: 0000000040000000 is reached by"));
  EXPECT_THAT(vm.output, HasSubstr("but the page tables do not allow it"));
  EXPECT_THAT(vm.output, HasSubstr("after the block at "));
}

TEST_F(Verify, SeesAPageThatAFlushHasEnded) {
  const Finished vm = paging_with("stale");
  EXPECT_EQ(vm.code, kDifferent) << vm.output;
  EXPECT_THAT(vm.output, HasSubstr("--verify: 0000000040000000 is reached by"));
  EXPECT_THAT(vm.output, HasSubstr("but a flush has ended that"));
}

TEST_F(Dump, ShowsGuestAndHostCodeWhereTracesGo) {
  const TempFile kernel{multiboot(program())}, file{""};
  const auto dumped = [&](const char* what) {
    const Finished vm = run({TRAPLINE_EXECUTABLE, "run", "--engine", "translate", "--dump", what, "--trace-file",
                             file.path(), "--kernel", kernel.path(), "--memory", "64M", "--timeout", "60"},
                            {}, seconds{90});
    EXPECT_EQ(vm.code, kSame) << vm.output;
    std::ifstream in{file.path()};
    return std::string{std::istreambuf_iterator<char>{in}, {}};
  };
  const std::string guest = dumped("guest"), host = dumped("host"), both = dumped("guest,host");
  const char* const insn = "000000000010002c  add eax, 0x11111111";
  const char* const code = "  pext rcx, r10, [state.page_bits]";
  EXPECT_THAT(guest, HasSubstr("dump 0x10002c (gpa 0x10002c)"));
  EXPECT_THAT(guest, HasSubstr(insn));
  EXPECT_THAT(guest, Not(HasSubstr(code)));
  EXPECT_THAT(host, HasSubstr(code));
  EXPECT_THAT(host, Not(HasSubstr(insn)));
  EXPECT_THAT(both, HasSubstr(insn));
  EXPECT_THAT(both, HasSubstr(code));
  EXPECT_THAT(both, Not(HasSubstr("0x7F")));  // no host address
  const Finished wrong = run({TRAPLINE_EXECUTABLE, "run", "--dump", "gest", "--kernel", kernel.path()});
  EXPECT_EQ(wrong.code, 2);
  EXPECT_THAT(wrong.output, HasSubstr("--dump gest: give guest, host or guest,host"));
}

TEST_F(PerfMap, NamesBlocksByGuestAddress) {
  const TempFile kernel{multiboot(program())};
  const Finished vm = run({TRAPLINE_EXECUTABLE, "run", "--engine", "translate", "--perf-map", "--kernel", kernel.path(),
                           "--memory", "64M", "--timeout", "60"},
                          {}, seconds{90});
  EXPECT_EQ(vm.code, kSame) << vm.output;
  const std::string before = "--perf-map: ", after = ": perf record -p ";
  const auto at = vm.output.find(before), end = vm.output.find(after);
  ASSERT_TRUE(at != std::string::npos && end != std::string::npos) << vm.output;
  const std::string path = vm.output.substr(at + before.size(), end - at - before.size());
  ASSERT_EQ(path, fmt::format("/tmp/perf-{}.map", std::atoi(vm.output.c_str() + end + after.size())));
  std::ifstream in{path};
  const std::string map{std::istreambuf_iterator<char>{in}, {}};
  std::remove(path.c_str());
  EXPECT_THAT(map, HasSubstr(" trapline thunks\n"));
  unsigned long long start = 0, bytes = 0;
  const auto line = map.find(" guest [10002c]\n");
  ASSERT_NE(line, std::string::npos) << map;
  const auto begin = map.rfind('\n', line) + 1;
  ASSERT_EQ(std::sscanf(map.c_str() + begin, "%llx %llx guest", &start, &bytes), 2) << map;
  EXPECT_GT(start, 0x10000u);
  EXPECT_GT(bytes, 50u);  // nine instructions
}

TEST_F(Verify, RefusesWhatItCannotCompare) {
  const Finished itself = run({TRAPLINE_EXECUTABLE, "run", "--engine", "interpret", "--verify", "--kernel", "x"});
  EXPECT_EQ(itself.code, 2);
  EXPECT_THAT(itself.output, HasSubstr("--verify: engine interpret"));
  const Finished races =
      run({TRAPLINE_EXECUTABLE, "run", "--engine", "translate", "--verify", "--cpus", "2", "--kernel", "x"});
  EXPECT_EQ(races.code, 2);
  EXPECT_THAT(races.output, HasSubstr("--clock instructions"));
}

}  // namespace
}  // namespace trapline::test
