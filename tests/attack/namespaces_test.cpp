// What is around the processes of a VM besides the core's filter: namespaces, capabilities, the monitor's own filters.
#include "channel/namespaces.h"

#include <dirent.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <set>

#include "support/process.h"
#include "support/process_table.h"
#include "support/tiny_guest.h"

namespace trapline::test {
namespace {

using namespace std::chrono_literals;

std::string namespace_of(pid_t pid, const char* kind) {
  char target[64] = {};
  const std::string link = "/proc/" + std::to_string(pid) + "/ns/" + kind;
  return ::readlink(link.c_str(), target, sizeof target - 1) > 0 ? target : "";
}

struct RunningVm {
  explicit RunningVm(std::vector<std::string> more = {})
      : kernel{multiboot(prints("up", loops_for_ever()))}, vm{command(std::move(more))} {
    EXPECT_TRUE(vm.wait_for("up", 20s)) << vm.output();
    const auto children = children_of(vm.pid());
    EXPECT_EQ(children.size(), 1u);
    if (children.size() == 1) core = children[0];
  }
  std::vector<std::string> command(std::vector<std::string> more) {
    more.insert(more.begin(), {TRAPLINE_EXECUTABLE, "run", "--memory", "64M", "--kernel", kernel.path()});
    return more;
  }
  TempFile kernel;
  Process vm;
  pid_t core = -1;
};

TEST(Namespaces, TheCoreHasItsOwnWhereTheHostAllowsIt) {
  const std::string own = channel::own_namespaces();
  if (own.empty()) GTEST_SKIP() << "this host allows none";
  if (::geteuid() != 0) GTEST_SKIP() << "the core's are not to be seen by an ordinary user";
  RunningVm vm;
  for (const char* kind : {"user", "net", "pid", "ipc", "uts"}) {
    if (own.find(kind) == std::string::npos) continue;
    EXPECT_NE(namespace_of(vm.core, kind), namespace_of(vm.vm.pid(), kind)) << kind;
  }
  if (own.find("mount") != std::string::npos) {
    // Its root is empty.
    DIR* root = ::opendir(("/proc/" + std::to_string(vm.core) + "/root").c_str());
    ASSERT_TRUE(root);
    std::set<std::string> names;
    while (const dirent* e = ::readdir(root)) names.insert(e->d_name);
    ::closedir(root);
    EXPECT_EQ(names, (std::set<std::string>{".", ".."}));
  }
  // The host's files are where they were.
  EXPECT_EQ(::access("/proc/self/exe", F_OK), 0);
  EXPECT_EQ(::access(TRAPLINE_EXECUTABLE, F_OK), 0);
}

TEST(Namespaces, PerfFindsTheCoreOfPerfMap) {
  if (::geteuid() != 0) GTEST_SKIP() << "the core's are not to be seen by an ordinary user";
  RunningVm vm{{"--perf-map"}};
  for (const char* kind : {"pid", "mnt"})
    EXPECT_EQ(namespace_of(vm.core, kind), namespace_of(::getpid(), kind)) << kind;
  ::unlink(("/tmp/perf-" + std::to_string(vm.core) + ".map").c_str());
}

TEST(Namespaces, TheCoreHasNoCapabilities) {
  RunningVm vm;
  const std::string core = std::to_string(vm.core);
  for (const char* set : {"CapPrm", "CapEff", "CapInh", "CapAmb"})
    EXPECT_EQ(std::stoull(status_field(core, set), nullptr, 16), 0u) << set;
  EXPECT_EQ(status_field(core, "NoNewPrivs"), "1");
  EXPECT_EQ(status_field(core, "Seccomp"), "2");
}

// Two threads wait for signals and lead the VM's life; the others handle what the core, keys and a debugger send.
TEST(Confined, ThreadsOfTheMonitorAreBehindAFilter) {
  RunningVm vm{{"--cpus", "2", "--gdb", "/tmp/trapline-confined-" + std::to_string(::getpid())}};
  const std::string tasks = std::to_string(vm.vm.pid()) + "/task";
  DIR* all = ::opendir(("/proc/" + tasks).c_str());
  ASSERT_TRUE(all);
  int free = 0, confined = 0;
  while (const dirent* e = ::readdir(all)) {
    if (e->d_name[0] == '.') continue;
    (status_field(tasks + "/" + e->d_name, "Seccomp") == "2" ? confined : free)++;
  }
  ::closedir(all);
  EXPECT_EQ(free, 2);
  EXPECT_EQ(confined, 8) << "two service threads, timer, console, input, debugger, who watches its mailbox, and who "
                            "hears `trapline balloon`";
  vm.vm.signal(SIGTERM);
  EXPECT_EQ(vm.vm.wait_exit(20s), 143) << vm.vm.output();
}

}  // namespace
}  // namespace trapline::test
