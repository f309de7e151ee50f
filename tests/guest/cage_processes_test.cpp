// The processes of a VM whose user code runs in cages: whichever of them is killed, nothing stays behind, and what can
// go on does.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>
#include <thread>

#include "support/engines.h"
#include "support/process.h"

namespace trapline::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

struct Status {
  pid_t parent = 0;
  char state = 'X';
};

// proc(5): PID (NAME) STATE PPID ...; the name may hold anything.
Status status_of(pid_t pid) {
  std::ifstream file{fmt::format("/proc/{}/stat", pid)};
  std::string line;
  std::getline(file, line);
  const auto behind_name = line.rfind(')');
  Status s;
  if (behind_name == std::string::npos) return s;
  std::istringstream{line.substr(behind_name + 1)} >> s.state >> s.parent;
  return s;
}

bool alive(pid_t pid) {
  const char state = status_of(pid).state;
  return state != 'X' && state != 'Z';
}

std::vector<pid_t> children_of(pid_t parent) {
  std::vector<pid_t> found;
  for (const auto& entry : std::filesystem::directory_iterator{"/proc"}) {
    const int pid = std::atoi(entry.path().filename().c_str());
    if (pid > 0 && status_of(pid).parent == parent && alive(pid)) found.push_back(pid);
  }
  return found;
}

bool gone(const std::vector<pid_t>& pids, seconds limit) {
  const auto until = std::chrono::steady_clock::now() + limit;
  while (std::any_of(pids.begin(), pids.end(), alive)) {
    if (std::chrono::steady_clock::now() > until) return false;
    std::this_thread::sleep_for(milliseconds{20});
  }
  return true;
}

class CageProcesses : public testing::Test {
 protected:
  void SetUp() override {
    SKIP_UNLESS_OFFERED("patch");
    Process::Options options;
    options.environment = {"TRAPLINE_DEBUG=direct"};
    vm_ = std::make_unique<Process>(
        std::vector<std::string>{TRAPLINE_EXECUTABLE, "run", "--engine", "patch", "--kernel",
                                 GUEST_CACHE "/kernels/cloud-amd64/vmlinuz", "--initrd", GUEST_CACHE "/initrd-amd64",
                                 "--memory", "256M", "--timeout", "200", "--append", "console=ttyS0 quiet panic=-1"},
        options);
    ASSERT_TRUE(vm_->wait_for("/ # ", seconds{120})) << vm_->output();
    for (const pid_t child : children_of(vm_->pid()))
      if (auto cages = children_of(child); !cages.empty()) core_ = child, cages_ = std::move(cages);
    ASSERT_GT(core_, 0);
    ASSERT_GE(cages_.size(), 2u);
  }
  // Programs that come and go, and one that stays.
  void busy() {
    vm_->send("while :; do seq 1 300 | md5sum; done >/dev/null & awk 'BEGIN { while (1) i++ }' &\necho star''ted\n");
    ASSERT_TRUE(vm_->wait_for("started", seconds{60})) << vm_->output();
    std::this_thread::sleep_for(milliseconds{std::uniform_int_distribution<>{0, 400}(random_)});
  }

  std::unique_ptr<Process> vm_;
  pid_t core_ = 0;
  std::vector<pid_t> cages_;
  std::mt19937 random_{std::random_device{}()};
};

TEST_F(CageProcesses, EndWithTheVm) {
  vm_->send("poweroff -f\n");
  EXPECT_EQ(vm_->wait_exit(seconds{60}), 0) << vm_->output();
  EXPECT_TRUE(gone(cages_, seconds{5}));
}

TEST_F(CageProcesses, EndWithTheCoreThatIsKilled) {
  busy();
  kill(core_, SIGKILL);
  EXPECT_EQ(vm_->wait_exit(seconds{30}), 7) << vm_->output();
  EXPECT_TRUE(gone(cages_, seconds{5}));
}

TEST_F(CageProcesses, EndWithTheMonitorThatIsKilled) {
  busy();
  kill(vm_->pid(), SIGKILL);
  EXPECT_TRUE(gone({core_}, seconds{10}));
  EXPECT_TRUE(gone(cages_, seconds{10}));
}

// A program whose cage is killed gets a fault that its kernel answers. If it was the shell /init powers off; if it was
// /init the kernel panics and resets, and a new core comes.
TEST_F(CageProcesses, OneThatIsKilledCostsItsProgramOnly) {
  busy();
  for (const pid_t cage : cages_) {
    kill(cage, SIGKILL);
    std::this_thread::sleep_for(milliseconds{std::uniform_int_distribution<>{0, 100}(random_)});
  }
  EXPECT_TRUE(gone(cages_, seconds{10}));
  vm_->send("echo al''ive\n");
  if (vm_->wait_for("alive", seconds{10})) return;
  if (vm_->wait_for("Enter 'help'", seconds{100})) {
    vm_->send("echo al''ive\n");
    EXPECT_TRUE(vm_->wait_for("alive", seconds{100})) << vm_->output();
  } else {
    EXPECT_EQ(vm_->wait_exit(seconds{10}), 0) << vm_->output();
  }
}

}  // namespace
}  // namespace trapline::test
