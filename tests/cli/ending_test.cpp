// How VMs end: by themselves, by the clock, by signals, by a lost console; and that nothing is left behind.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <fstream>
#include <sstream>
#include <thread>

#include "support/process.h"
#include "support/process_table.h"
#include "support/tiny_guest.h"

namespace trapline::test {
namespace {

using namespace std::chrono_literals;
using std::chrono::seconds;
using testing::HasSubstr;

std::vector<std::string> command(const TempFile& kernel, std::vector<std::string> more = {}) {
  more.insert(more.begin(), {TRAPLINE_EXECUTABLE, "run", "--memory", "64M", "--kernel", kernel.path()});
  return more;
}

TEST(Ending, TheGuestChoosesTheCode) {
  const TempFile zero{multiboot(exits_with(0))}, five{multiboot(exits_with(5))};
  EXPECT_EQ(run(command(zero)).code, 1);
  EXPECT_EQ(run(command(five)).code, 11);
}

TEST(Ending, OutputIsWhole) {
  std::string text;
  for (int i = 0; i < 300; i++) text += static_cast<char>('a' + i % 26);
  const TempFile kernel{multiboot(prints(text, exits_with(2)))};
  for (const char* clock : {"real", "instructions"}) {
    const Finished f = run(command(kernel, {"--clock", clock}));
    EXPECT_EQ(f.code, 5);
    EXPECT_EQ(f.output, text);
  }
}

TEST(Ending, ATripleFaultIsReported) {
  const TempFile kernel{multiboot(triple_faults())};
  const Finished f = run(command(kernel));
  EXPECT_EQ(f.code, 4) << f.output;
  EXPECT_THAT(f.output, HasSubstr("triple fault"));
  EXPECT_THAT(f.output, HasSubstr("rax "));
  EXPECT_THAT(f.output, HasSubstr("> 000000000010"));
  EXPECT_THAT(f.output, HasSubstr("ud2"));
}

TEST(Ending, SymbolsAreNamedInReports) {
  const TempFile kernel{multiboot(triple_faults())}, map{"0000000000100000 T the_guest\n"};
  EXPECT_THAT(run(command(kernel, {"--system-map", map.path()})).output, HasSubstr("<the_guest+0x"));
}

TEST(Ending, AGuestThatCanNeverWakeIsNoticed) {
  const TempFile kernel{multiboot(halts_for_good())};
  for (const char* clock : {"real", "instructions"})
    for (const char* cpus : {"1", "3"}) {
      const Finished f = run(command(kernel, {"--clock", clock, "--cpus", cpus}));
      EXPECT_EQ(f.code, 8) << f.output;
      EXPECT_THAT(f.output, HasSubstr("interrupts off"));
    }
}

TEST(Ending, TimeOut) {
  const TempFile kernel{multiboot(loops_for_ever())};
  for (const char* clock : {"real", "instructions"}) {
    const Finished f = run(command(kernel, {"--timeout", "0.3", "--clock", clock}));
    EXPECT_EQ(f.code, 5) << f.output;
    EXPECT_THAT(f.output, HasSubstr("--timeout"));
  }
}

TEST(Ending, ResetsBootAgainUnlessRefused) {
  const TempFile kernel{multiboot(prints("boot ", {0xb0, 0xfe, 0xe6, 0x64, 0xeb, 0xfe}))};  // i8042: pulse reset
  const Finished f = run(command(kernel, {"--no-reboot"}));
  EXPECT_EQ(f.code, 6) << f.output;
  Process vm{command(kernel)};
  for (int i = 0; i < 3; i++) EXPECT_TRUE(vm.wait_for("boot ", 20s));
  vm.signal(SIGTERM);
  EXPECT_EQ(vm.wait_exit(10s), 143);
}

TEST(Ending, SignalsEndItCleanly) {
  const TempFile kernel{multiboot(prints("up", loops_for_ever()))};
  for (int number : {SIGTERM, SIGINT, SIGHUP}) {
    Process vm{command(kernel)};
    ASSERT_TRUE(vm.wait_for("up", 20s));
    const auto children = children_of(vm.pid());
    EXPECT_EQ(children.size(), 1u);
    vm.signal(number);
    EXPECT_EQ(vm.wait_exit(10s), 128 + number) << vm.output();
    for (pid_t child : children) EXPECT_TRUE(gone(child));
  }
}

// At any moment of a start, a run and an end.
TEST(Ending, SigtermAtAnyTimeLeavesNothingBehind) {
  const TempFile kernel{multiboot(prints("boot ", {0xb0, 0xfe, 0xe6, 0x64, 0xeb, 0xfe}))};  // resets for ever
  for (int i = 0; i < 40; i++) {
    Process vm{command(kernel, {"--cpus", "2"})};
    std::this_thread::sleep_for(i * 2ms);
    vm.signal(SIGTERM);
    EXPECT_EQ(vm.wait_exit(10s), 143) << "after " << i * 2 << " ms: " << vm.output();
    EXPECT_TRUE(gone(-vm.pid())) << "the whole process group, after " << i * 2 << " ms";
  }
}

TEST(Ending, ATraceThatCannotBeWrittenIsSaid) {
  const TempFile kernel{multiboot(prints("text", exits_with(3)))};
  for (const char* clock : {"real", "instructions"}) {
    const Finished f = run(command(kernel, {"--clock", clock, "--trace", "all", "--trace-file", "/dev/full"}));
    EXPECT_EQ(f.code, 7) << "the guest's own";
    EXPECT_THAT(f.output, HasSubstr("--trace-file /dev/full: No space left on device"));
  }
}

TEST(Ending, EveryAccessIsTracedOnceAndNamesItsVcpu) {
  const TempFile kernel{multiboot(prints("abc", exits_with(3)))};
  Process::Options options;
  options.merge_stderr = false;
  const std::string trace = run(command(kernel, {"--trace", "exits"}), {}, 30s, options).errors;
  std::size_t lines = 0, about_serial = 0;
  std::istringstream in{trace};
  for (std::string line; std::getline(in, line); lines++) {
    EXPECT_TRUE(line.starts_with("exits: vcpu0 ")) << line;
    about_serial += line.find("0x3f8") != std::string::npos;
  }
  EXPECT_EQ(about_serial, 3u) << trace;
  EXPECT_GE(lines, 4u);
}

TEST(Ending, MemoryIsTakenAsTheGuestTouchesIt) {
  const TempFile kernel{multiboot(prints("up", loops_for_ever()))};
  std::vector<std::string> argv{TRAPLINE_EXECUTABLE, "run", "--memory", "16G", "--kernel", kernel.path()};
  Process vm{argv};
  ASSERT_TRUE(vm.wait_for("up", 20s)) << vm.output();
  const auto children = children_of(vm.pid());
  ASSERT_EQ(children.size(), 1u);
  std::ifstream status{"/proc/" + std::to_string(children[0]) + "/status"};
  unsigned long resident = 0;
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmRSS:")) resident = std::stoul(line.substr(6));
  EXPECT_GT(resident, 0u);
  EXPECT_LT(resident, 256u * 1024) << "KiB";
}

TEST(Ending, AKilledMonitorTakesItsCoreAlong) {
  const TempFile kernel{multiboot(prints("up", loops_for_ever()))};
  Process vm{command(kernel, {"--cpus", "2"})};
  ASSERT_TRUE(vm.wait_for("up", 20s));
  const auto children = children_of(vm.pid());
  ASSERT_EQ(children.size(), 1u);
  ::kill(vm.pid(), SIGKILL);
  vm.wait_exit(10s);
  EXPECT_TRUE(gone(children[0]));
}

TEST(Ending, AKilledCoreIsReported) {
  const TempFile kernel{multiboot(prints("up", loops_for_ever()))};
  Process vm{command(kernel)};
  ASSERT_TRUE(vm.wait_for("up", 20s));
  const auto children = children_of(vm.pid());
  ASSERT_EQ(children.size(), 1u);
  ::kill(children[0], SIGKILL);
  EXPECT_EQ(vm.wait_exit(10s), 7) << vm.output();
  EXPECT_THAT(vm.output(), HasSubstr("killed from outside"));
}

TEST(Ending, AClosedInputIsNoInput) {
  const TempFile kernel{multiboot(prints("ran", exits_with(3)))};
  const Finished f =
      run({"/bin/sh", "-c", std::string{TRAPLINE_EXECUTABLE} + " run --kernel " + kernel.path() + " <&-"});
  EXPECT_EQ(f.code, 7);
  EXPECT_EQ(f.output, "ran");
}

TEST(Ending, ALostConsoleIsSaid) {
  const TempFile kernel{multiboot(prints("text", exits_with(3)))};
  const std::string base = std::string{TRAPLINE_EXECUTABLE} + " run --kernel " + kernel.path();
  for (const char* where : {" >&-", " >/dev/full"}) {
    const Finished f = run({"/bin/sh", "-c", base + where});
    EXPECT_EQ(f.code, 9) << where;
    EXPECT_THAT(f.output, HasSubstr("standard output"));
  }
  const TempFile chatty{multiboot(prints("text", {0xee, 0xeb, 0xfd}))};  // prints for ever
  const Finished f =
      run({"/bin/bash", "-c",
           "set -o pipefail; " + std::string{TRAPLINE_EXECUTABLE} + " run --kernel " + chatty.path() + " | head -c 3"});
  EXPECT_EQ(f.code, 9) << f.output;
  EXPECT_THAT(f.output, HasSubstr("Broken pipe"));
}

TEST(Ending, StatisticsAreOnStandardError) {
  const TempFile kernel{multiboot(prints("x", exits_with(3)))};
  Process::Options options;
  options.merge_stderr = false;
  const Finished f = run(command(kernel, {"--stats"}), {}, 30s, options);
  EXPECT_EQ(f.output, "x");
  EXPECT_THAT(f.errors, HasSubstr(" instructions in "));
  EXPECT_THAT(f.errors, HasSubstr("port writes"));
}

TEST(Ending, HaltsAreCounted) {
  const TempFile kernel{multiboot(halts_for_good())};
  for (const char* clock : {"real", "instructions"}) {
    const Finished f = run(command(kernel, {"--stats", "--clock", clock}));
    EXPECT_EQ(f.code, 8);
    EXPECT_THAT(f.output, testing::ContainsRegex("exits: halts +1 "));
  }
}

TEST(Ending, TwoRunsByInstructionsTraceTheSame) {
  const TempFile kernel{multiboot(prints("same every time", exits_with(3)))};
  Process::Options options;
  options.merge_stderr = false;
  const auto once = [&] {
    return run(command(kernel, {"--clock", "instructions", "--trace", "all"}), {}, 30s, options).errors;
  };
  const std::string first = once();
  EXPECT_GT(first.size(), 1000u);
  EXPECT_EQ(first, once());
}

}  // namespace
}  // namespace trapline::test
