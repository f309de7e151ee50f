// Signals are heard whatever the VM is waiting for.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <thread>

#include "support/process.h"
#include "support/process_table.h"
#include "support/tiny_guest.h"

namespace trapline::test {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;

std::vector<std::string> command(const std::string& kernel, std::vector<std::string> more = {}) {
  more.insert(more.begin(), {TRAPLINE_EXECUTABLE, "run", "--memory", "64M", "--kernel", kernel});
  return more;
}

// A name for a pipe, gone with the object.
class Fifo {
 public:
  Fifo() : path_{"/tmp/trapline-fifo-" + std::to_string(::getpid())} {
    ::unlink(path_.c_str());
    if (::mkfifo(path_.c_str(), 0600) != 0) throw std::runtime_error("mkfifo");
  }
  ~Fifo() { ::unlink(path_.c_str()); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// It catches SIGTERM by now: bit 14 of the blocked ones.
bool listens(pid_t pid) {
  for (int i = 0; i < 500; i++) {
    const std::string blocked = status_field(std::to_string(pid), "SigBlk");
    if (!blocked.empty() && (std::stoull(blocked, nullptr, 16) & 1u << (SIGTERM - 1))) return true;
    std::this_thread::sleep_for(10ms);
  }
  return false;
}

void expect_heard(const std::vector<std::string>& argv) {
  for (const int number : {SIGTERM, SIGINT}) {
    Process vm{argv};
    ASSERT_TRUE(listens(vm.pid()));
    std::this_thread::sleep_for(50ms);
    vm.signal(number);
    EXPECT_EQ(vm.wait_exit(20s), 128 + number) << vm.output();
    EXPECT_THAT(vm.output(), HasSubstr("ended by SIG"));
  }
}

TEST(Signals, AreHeardWhileFilesAreOpenedAndRead) {
  const Fifo fifo;
  const TempFile kernel{multiboot(exits_with(0))};
  expect_heard(command(fifo.path()));  // no writer
  expect_heard(command("/dev/zero"));  // no end
  expect_heard(command(kernel.path(), {"--initrd", fifo.path()}));
  expect_heard(command(kernel.path(), {"--trace", "boot", "--trace-file", fifo.path()}));  // no reader
}

TEST(Signals, ATimeOutCountsWhileFilesAreRead) {
  const Fifo fifo;
  const Finished f = run(command(fifo.path(), {"--timeout", "0.2"}));
  EXPECT_EQ(f.code, 5);
  EXPECT_THAT(f.output, HasSubstr("--timeout: its files were not read after 0.2 s"));
}

// A pipe that nobody reads, full.
struct FullPipe {
  FullPipe() {
    if (::pipe(ends) != 0) throw std::runtime_error("pipe");
    ::fcntl(ends[1], F_SETFL, O_NONBLOCK);
    char page[4096] = {};
    while (::write(ends[1], page, sizeof page) > 0) {
    }
    ::fcntl(ends[1], F_SETFL, 0);
  }
  ~FullPipe() { ::close(ends[0]), ::close(ends[1]); }
  int ends[2];
};

int with_descriptors(const std::vector<std::string>& argv, int out, int err, int signal) {
  std::vector<char*> words;
  for (const auto& a : argv) words.push_back(const_cast<char*>(a.c_str()));
  words.push_back(nullptr);
  const pid_t pid = ::fork();
  if (pid == 0) {
    const int null = ::open("/dev/null", O_RDWR);
    ::dup2(null, 0);
    ::dup2(out >= 0 ? out : null, 1);
    ::dup2(err >= 0 ? err : null, 2);
    ::execv(words[0], words.data());
    ::_exit(127);
  }
  if (signal) {
    if (!listens(pid)) return -2;
    std::this_thread::sleep_for(500ms);
    ::kill(pid, signal);
  }
  int status = 0;
  for (int i = 0; i < 3000; i++) {
    if (::waitpid(pid, &status, WNOHANG) == pid) return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    std::this_thread::sleep_for(10ms);
  }
  ::kill(pid, SIGKILL);
  ::waitpid(pid, &status, 0);
  return -3;
}

TEST(Signals, AreHeardWhileStandardOutputIsFull) {
  const TempFile chatty{multiboot(prints("text", {0xee, 0xeb, 0xfd}))};  // prints for ever
  const TempFile brief{multiboot(prints("text", exits_with(3)))};        // its end waits for the reader
  for (const char* clock : {"real", "instructions"})
    for (const TempFile* kernel : {&chatty, &brief}) {
      const FullPipe pipe;
      EXPECT_EQ(with_descriptors(command(kernel->path(), {"--clock", clock}), pipe.ends[1], -1, SIGTERM), 143) << clock;
    }
}

TEST(Signals, AreHeardWhileStandardErrorIsFull) {
  const TempFile kernel{multiboot(prints("text", loops_for_ever()))}, crash{multiboot(triple_faults())};
  for (const char* trace : {"exits", "all"}) {
    const FullPipe pipe;
    EXPECT_EQ(with_descriptors(command(kernel.path(), {"--trace", trace}), -1, pipe.ends[1], SIGTERM), 143) << trace;
  }
  const FullPipe pipe;
  EXPECT_EQ(with_descriptors(command(crash.path()), -1, pipe.ends[1], SIGTERM), 4) << "the report waits for its reader";
}

TEST(Signals, ASignalThatWasIgnoredStaysSo) {
  const TempFile kernel{multiboot(prints("up", loops_for_ever()))};
  for (const std::string name : {"HUP", "INT", "USR1"}) {
    Process vm{{"/bin/sh", "-c",
                "trap '' " + name + "; exec " + TRAPLINE_EXECUTABLE + " run --memory 64M --kernel " + kernel.path()}};
    ASSERT_TRUE(vm.wait_for("up", 20s));
    vm.signal(name == "HUP" ? SIGHUP : name == "INT" ? SIGINT : SIGUSR1);
    std::this_thread::sleep_for(200ms);
    EXPECT_EQ(::kill(vm.pid(), 0), 0);
    vm.signal(SIGTERM);
    EXPECT_EQ(vm.wait_exit(20s), 143) << name << ": " << vm.output();
  }
}

// The core starts anew all the time, and hears the signal as well.
TEST(Signals, ToTheWholeGroupAreNoFaultOfTheCore) {
  const TempFile kernel{multiboot(prints("boot ", {0xb0, 0xfe, 0xe6, 0x64, 0xeb, 0xfe}))};  // resets for ever
  for (const int number : {SIGTERM, SIGUSR1, SIGRTMIN})
    for (int i = 0; i < 12; i++) {
      Process vm{command(kernel.path())};
      ASSERT_TRUE(listens(vm.pid()));
      std::this_thread::sleep_for(i * 3ms);
      ::kill(-vm.pid(), number);
      EXPECT_EQ(vm.wait_exit(20s), 128 + number) << vm.output();
      EXPECT_THAT(vm.output(), testing::Not(HasSubstr("internal error")));
    }
}

TEST(Signals, ASignalDuringAStopIsHeardAfterIt) {
  const TempFile kernel{multiboot(prints("up", loops_for_ever()))};
  Process vm{command(kernel.path())};
  ASSERT_TRUE(vm.wait_for("up", 20s));
  vm.signal(SIGTSTP);
  for (int i = 0; i < 500 && state_of(vm.pid()) != 'T'; i++) std::this_thread::sleep_for(10ms);
  ASSERT_EQ(state_of(vm.pid()), 'T');
  vm.signal(SIGTERM);
  vm.signal(SIGCONT);
  EXPECT_EQ(vm.wait_exit(20s), 143) << vm.output();
}

}  // namespace
}  // namespace trapline::test
