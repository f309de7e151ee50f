// How VMs end: by themselves, by the clock, by signals, by a lost console; and that nothing is left behind.
#include <dirent.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pty.h>
#include <signal.h>
#include <sys/wait.h>
#include <termios.h>

#include <fstream>
#include <thread>

#include "support/process.h"
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

// Processes whose parent is `parent`.
std::vector<pid_t> children_of(pid_t parent) {
  std::vector<pid_t> found;
  DIR* proc = ::opendir("/proc");
  while (const dirent* e = proc ? ::readdir(proc) : nullptr) {
    std::ifstream stat{std::string{"/proc/"} + e->d_name + "/stat"};
    std::string text;
    if (!std::getline(stat, text)) continue;
    const auto after = text.rfind(')');
    pid_t ppid = 0;
    char state = 0;
    if (after != std::string::npos && std::sscanf(text.c_str() + after + 1, " %c %d", &state, &ppid) == 2 &&
        ppid == parent)
      found.push_back(std::atoi(e->d_name));
  }
  if (proc) ::closedir(proc);
  return found;
}

bool gone(pid_t pid) {
  for (int i = 0; i < 200; i++) {
    if (::kill(pid, 0) != 0 && errno == ESRCH) return true;
    std::this_thread::sleep_for(10ms);
  }
  return false;
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

// A VM on a terminal of its own.
class TerminalTest : public testing::Test {
 protected:
  void start(const TempFile& kernel) {
    pid_ = ::forkpty(&terminal_, nullptr, nullptr, nullptr);
    ASSERT_GE(pid_, 0);
    if (pid_ == 0) {
      ::execl(TRAPLINE_EXECUTABLE, "trapline", "run", "--kernel", kernel.path().c_str(), nullptr);
      ::_exit(127);
    }
  }
  ~TerminalTest() override {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      ::waitpid(pid_, nullptr, 0);
    }
    ::close(terminal_);
  }
  std::string read_until(const std::string& text) {
    std::string got;
    ::fcntl(terminal_, F_SETFL, O_NONBLOCK);
    for (int i = 0; i < 2000 && got.find(text) == std::string::npos; i++) {
      char buffer[256];
      const ssize_t n = ::read(terminal_, buffer, sizeof buffer);
      if (n > 0)
        got.append(buffer, static_cast<std::size_t>(n));
      else
        std::this_thread::sleep_for(10ms);
    }
    return got;
  }
  bool raw() {
    termios t{};
    ::tcgetattr(terminal_, &t);
    return !(t.c_lflag & (ICANON | ECHO | ISIG));
  }
  void type(const char* keys) { ASSERT_GT(::write(terminal_, keys, std::strlen(keys)), 0); }
  int exit_code() {
    int status = 0;
    ::waitpid(pid_, &status, 0);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  pid_t pid_ = -1;
  int terminal_ = -1;
};

TEST_F(TerminalTest, CtrlAXQuitsAndTheTerminalIsRestored) {
  const TempFile kernel{multiboot(prints("up", loops_for_ever()))};
  start(kernel);
  EXPECT_THAT(read_until("up"), HasSubstr("up"));
  EXPECT_TRUE(raw());
  type("\x01h");
  EXPECT_THAT(read_until("quit"), HasSubstr("Ctrl-A X"));
  type("\x01x");
  EXPECT_EQ(exit_code(), 0);
  EXPECT_FALSE(raw());
}

TEST_F(TerminalTest, SignalsRestoreTheTerminal) {
  const TempFile kernel{multiboot(prints("up", loops_for_ever()))};
  start(kernel);
  read_until("up");
  EXPECT_TRUE(raw());
  ::kill(pid_, SIGTERM);
  EXPECT_EQ(exit_code(), 143);
  EXPECT_FALSE(raw());
}

TEST_F(TerminalTest, ACrashOfTheMonitorRestoresTheTerminal) {
  const TempFile kernel{multiboot(prints("up", loops_for_ever()))};
  start(kernel);
  read_until("up");
  ::kill(pid_, SIGSEGV);
  exit_code();
  EXPECT_FALSE(raw());
}

}  // namespace
}  // namespace trapline::test
