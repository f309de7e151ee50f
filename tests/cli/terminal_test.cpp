// A VM on a terminal: keys, job control, and that the terminal is as it was on every way out.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pty.h>
#include <signal.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <cstring>
#include <thread>

#include "support/process_table.h"
#include "support/tiny_guest.h"

namespace trapline::test {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;

// A VM on a terminal of its own.
class TerminalTest : public testing::Test {
 protected:
  void start(const TempFile& kernel) {
    pid_ = ::forkpty(&terminal_, nullptr, nullptr, nullptr);
    ASSERT_GE(pid_, 0);
    if (pid_ == 0) {
      ::execl(TRAPLINE_EXECUTABLE, "trapline", "run", "--memory", "64M", "--kernel", kernel.path().c_str(), nullptr);
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
  template <class Condition>
  bool eventually(Condition condition) {
    for (int i = 0; i < 500 && !condition(); i++) std::this_thread::sleep_for(10ms);
    return condition();
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

// As a shell's job control does it. The guest stands still meanwhile: its process is stopped too.
TEST_F(TerminalTest, StopAndContinueHandTheTerminalOver) {
  const TempFile kernel{multiboot(prints("up", loops_for_ever()))};
  start(kernel);
  read_until("up");
  ASSERT_TRUE(raw());
  const auto children = children_of(pid_);
  ASSERT_EQ(children.size(), 1u);
  for (int round = 0; round < 3; round++) {
    ::kill(pid_, SIGTSTP);
    int status = 0;
    ASSERT_EQ(::waitpid(pid_, &status, WUNTRACED), pid_);
    ASSERT_TRUE(WIFSTOPPED(status));
    EXPECT_FALSE(raw());
    for (int i = 0; i < 300 && state_of(children[0]) != 'T'; i++) std::this_thread::sleep_for(10ms);
    EXPECT_EQ(state_of(children[0]), 'T');
    ::kill(pid_, SIGCONT);
    for (int i = 0; i < 300 && !(raw() && state_of(children[0]) != 'T'); i++) std::this_thread::sleep_for(10ms);
    EXPECT_TRUE(raw());
    EXPECT_NE(state_of(children[0]), 'T');
  }
  type("\x01x");
  EXPECT_EQ(exit_code(), 0);
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

// A SIGCONT to a process that runs must not make the raw terminal the one to go back to.
TEST_F(TerminalTest, SigcontWithoutAStopChangesNothing) {
  const TempFile kernel{multiboot(prints("up", loops_for_ever()))};
  start(kernel);
  read_until("up");
  ASSERT_TRUE(raw());
  for (int i = 0; i < 3; i++) ::kill(pid_, SIGCONT);
  type("\x01h");
  EXPECT_THAT(read_until("quit"), HasSubstr("Ctrl-A X"));
  EXPECT_TRUE(raw());
  type("\x01x");
  EXPECT_EQ(exit_code(), 0);
  EXPECT_FALSE(raw());
}

TEST_F(TerminalTest, EveryEndingSignalRestoresTheTerminal) {
  const TempFile kernel{multiboot(prints("up", loops_for_ever()))};
  for (const int number : {SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGIO, SIGPWR,
                           SIGXCPU, SIGRTMIN, SIGRTMAX}) {
    start(kernel);
    read_until("up");
    ASSERT_TRUE(raw());
    ::kill(pid_, number);
    EXPECT_EQ(exit_code(), 128 + number);
    EXPECT_FALSE(raw()) << number;
    ::close(terminal_);
  }
  for (const int number : {SIGABRT, SIGFPE, SIGTRAP, SIGSYS}) {  // faults of its own: it dies of them
    start(kernel);
    read_until("up");
    ASSERT_TRUE(raw());
    ::kill(pid_, number);
    EXPECT_EQ(exit_code(), -1);
    EXPECT_FALSE(raw()) << number;
    ::close(terminal_);
  }
  terminal_ = -1;
}

// Nobody reads the other end: what the guest prints fills it.
TEST_F(TerminalTest, ATerminalThatNobodyReadsKeepsNoSignalOut) {
  const TempFile kernel{multiboot(prints("up", {0xee, 0xeb, 0xfd}))};  // prints for ever
  start(kernel);
  ASSERT_TRUE(eventually([&] { return raw(); }));
  std::this_thread::sleep_for(300ms);
  ::kill(pid_, SIGTERM);
  EXPECT_EQ(exit_code(), 143);
  EXPECT_FALSE(raw());
}

}  // namespace
}  // namespace trapline::test
