// A core that has been taken over tries to get out: each attempt is made by a process that locked itself down as the
// core does, and must kill it.
#include "core/sandbox.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "base/types.h"

namespace trapline::core {
namespace {

// Runs `attempt` behind the core's filter. The wait status.
template <class Attempt>
int behind_the_filter(Attempt attempt) {
  const pid_t pid = ::fork();
  if (pid == 0) {
    close_descriptors(-1);
    if (!lock_down(-1)) ::_exit(99);
    attempt();
    ::_exit(7);
  }
  int status = 0;
  ::waitpid(pid, &status, 0);
  return status;
}

bool killed(int status) { return WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS; }
bool survived(int status) { return WIFEXITED(status) && WEXITSTATUS(status) == 7; }

#define EXPECT_KILLED(...) EXPECT_TRUE(killed(behind_the_filter([] { __VA_ARGS__; }))) << #__VA_ARGS__
#define EXPECT_ALLOWED(...) EXPECT_TRUE(survived(behind_the_filter([] { __VA_ARGS__; }))) << #__VA_ARGS__

TEST(Sandbox, NoFilesNoSocketsNoProcesses) {
  EXPECT_KILLED(::open("/etc/passwd", O_RDONLY));
  EXPECT_KILLED(::openat(AT_FDCWD, "/dev/kvm", O_RDWR));
  EXPECT_KILLED(::access("/", R_OK));
  EXPECT_KILLED(::socket(AF_INET, SOCK_STREAM, 0));
  EXPECT_KILLED(::fork());
  EXPECT_KILLED(::execl("/bin/true", "true", nullptr));
  EXPECT_KILLED(::kill(::getppid(), SIGTERM));
  EXPECT_KILLED(::ptrace(PTRACE_ATTACH, 1, 0, 0));
  EXPECT_KILLED(char c; [[maybe_unused]] ssize_t n = ::read(0, &c, 1));
  EXPECT_KILLED([[maybe_unused]] ssize_t n = ::write(1, "x", 1));
  EXPECT_KILLED(::memfd_create("x", 0));
  EXPECT_KILLED(::syscall(SYS_prctl, 0));
  EXPECT_KILLED(::syscall(SYS_io_uring_setup, 1, nullptr));
}

TEST(Sandbox, NoNewExecutableMemory) {
  EXPECT_KILLED(::mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  EXPECT_KILLED(::mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE, 0, 0));
  EXPECT_KILLED(static u8 page[8192];
                ::mprotect(reinterpret_cast<void*>((reinterpret_cast<u64>(page) + 4095) & ~u64{4095}), 4096,
                           PROT_READ | PROT_EXEC));
}

TEST(Sandbox, NoSignalsToOthers) { EXPECT_KILLED(::syscall(SYS_tgkill, 1, 1, SIGTERM)); }

TEST(Sandbox, ThirtyTwoBitCallsAreNoWayAround) {
  EXPECT_KILLED(long r; asm volatile("int $0x80" : "=a"(r) : "a"(20) : "memory"));
}

TEST(Sandbox, WhatTheCoreNeedsWorks) {
  EXPECT_ALLOWED(void* p = ::mmap(nullptr, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
                 *static_cast<char*>(p) = 1; ::munmap(p, 1 << 20));
  EXPECT_ALLOWED(delete[] new char[64 << 20]);
  EXPECT_ALLOWED(timespec t; ::clock_gettime(CLOCK_MONOTONIC, &t));
  EXPECT_ALLOWED(::sched_yield());
}

TEST(Sandbox, CoversThreadsThatExistAlready) {
  const pid_t pid = ::fork();
  if (pid == 0) {
    std::atomic<bool> go{false};
    std::thread other{[&] {
      while (!go) {
      }
      ::open("/etc/passwd", O_RDONLY);
    }};
    if (!lock_down(-1)) ::_exit(99);
    go = true;
    for (;;) ::sched_yield();
  }
  int status = 0;
  ::waitpid(pid, &status, 0);
  EXPECT_TRUE(killed(status));
}

}  // namespace
}  // namespace trapline::core
