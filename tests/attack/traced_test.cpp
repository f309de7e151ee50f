// What the processes of a VM ask of the host, as strace sees it: the core nothing but its allow-list once the filter
// stands, neither of them /dev/kvm.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include "support/process.h"
#include "support/tiny_guest.h"

namespace trapline::test {
namespace {

using std::chrono::seconds;

bool can_trace() { return run({"strace", "-o", "/dev/null", "true"}).code == 0; }

struct Line {
  std::string pid, call;
};

// "1234  openat(..."; signals and exits are no calls.
std::vector<Line> parse(const std::string& path) {
  std::vector<Line> lines;
  std::ifstream in{path};
  for (std::string text; std::getline(in, text);) {
    std::istringstream words{text};
    Line l;
    words >> l.pid;
    std::getline(words >> std::ws, l.call);
    if (l.call.empty() || l.call[0] == '-' || l.call[0] == '+') continue;
    lines.push_back(l);
  }
  return lines;
}

std::string name_of(const std::string& call) { return call.substr(0, call.find('(')); }
bool resumed(const std::string& call) { return call.starts_with("<... "); }

// A thread or process was made: its id, else empty. The call may be told in two parts.
std::string child_of(const std::string& call) {
  if (call.find("clone") == std::string::npos) return {};
  const auto at = call.rfind("= ");
  return at == std::string::npos ? std::string{} : call.substr(at + 2);
}

// Of a process that makes threads and other processes. What these make is told by ids of their own namespace.
std::set<std::string> threads_of(const std::string& process, const std::vector<Line>& lines) {
  std::set<std::string> threads{process};
  std::map<std::string, bool> makes_thread;  // by the thread whose call was interrupted
  for (const Line& l : lines) {
    if (!threads.contains(l.pid) || l.call.find("clone") == std::string::npos) continue;
    if (!resumed(l.call)) makes_thread[l.pid] = l.call.find("CLONE_THREAD") != std::string::npos;
    if (makes_thread[l.pid] && !child_of(l.call).empty()) threads.insert(child_of(l.call));
  }
  return threads;
}

bool locks_down(const std::string& call) {
  return name_of(call) == "seccomp" && call.find("SECCOMP_SET_MODE_FILTER") != std::string::npos &&
         call.find("TSYNC") != std::string::npos && call.find("{len=") != std::string::npos;
}

TEST(Traced, TheCoreKeepsToItsListAndNobodyOpensKvm) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "LeakSanitizer traces by itself, and fails beside strace";
#endif
  if (!can_trace()) GTEST_SKIP() << "not proven here: strace is missing, or this host forbids ptrace";
  const TempFile kernel{multiboot(prints("hello", exits_with(4)))}, log{""};
  const Finished f = run({"strace", "-f", "-qq", "-o", log.path(), TRAPLINE_EXECUTABLE, "run", "--cpus", "2", "--stats",
                          "--kernel", kernel.path()});
  ASSERT_EQ(f.code, 9) << f.output;

  const auto lines = parse(log.path());
  ASSERT_FALSE(lines.empty());
  std::size_t locked_at = lines.size();
  for (std::size_t i = 0; i < lines.size(); i++) {
    EXPECT_EQ(lines[i].call.find("/dev/kvm"), std::string::npos) << lines[i].call;
    if (locks_down(lines[i].call)) locked_at = i;
  }
  ASSERT_LT(locked_at, lines.size()) << "no filter was installed";
  const std::set<std::string> monitor = threads_of(lines.front().pid, lines);
  std::set<std::string> core;
  for (const Line& l : lines)
    if (!monitor.contains(l.pid)) core.insert(l.pid);
  EXPECT_TRUE(core.contains(lines[locked_at].pid));

  const std::set<std::string> allowed{"futex", "exit", "exit_group", "sched_yield", "restart_syscall", "membarrier",
                                      "rt_sigreturn", "rt_sigprocmask", "gettid", "getpid", "tgkill", "clock_gettime",
                                      "gettimeofday", "time", "brk", "munmap", "madvise", "mremap", "mmap", "mprotect",
                                      // Images, until they are in RAM; which descriptors: sandbox_test.cpp.
                                      "lseek", "sendfile", "close"};
  std::size_t after = 0;
  for (std::size_t i = locked_at + 1; i < lines.size(); i++) {
    if (!core.contains(lines[i].pid) || resumed(lines[i].call)) continue;
    after++;
    EXPECT_TRUE(allowed.contains(name_of(lines[i].call))) << lines[i].call;
    EXPECT_EQ(lines[i].call.find("PROT_EXEC"), std::string::npos) << lines[i].call;
  }
  EXPECT_GE(core.size(), 3u) << "the core has a thread for each vCPU";
  EXPECT_GT(after, 0u);
}

TEST(Traced, WorksAsAnOrdinaryUser) {
  if (::geteuid() != 0) GTEST_SKIP() << "this is an ordinary user already";
  const TempFile kernel{multiboot(exits_with(4))};
  ASSERT_EQ(::system(("chmod 644 " + kernel.path()).c_str()), 0);
  const Finished f = run({"setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--no-new-privs",
                          TRAPLINE_EXECUTABLE, "run", "--kernel", kernel.path()});
  if (f.code == 127 || f.output.find("Permission denied") != std::string::npos)
    GTEST_SKIP() << "the executable lies where others cannot read it";
  EXPECT_EQ(f.code, 9) << f.output;
}

}  // namespace
}  // namespace trapline::test
