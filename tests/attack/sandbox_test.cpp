// A core that has been taken over tries to get out: each attempt is made by a process that locked itself down as the
// core does, and must kill it.
#include "core/sandbox.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/sendfile.h>
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
    if (!lock_down({})) ::_exit(99);
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

// Images go into RAM by their two descriptors, and no other way.
TEST(Sandbox, ImagesMayBeSentToRamAndNowhereElse) {
  const int ram = ::memfd_create("ram", 0), image = ::memfd_create("image", 0), other = ::memfd_create("other", 0);
  ASSERT_EQ(::ftruncate(ram, 4096) | ::ftruncate(image, 4096) | ::ftruncate(other, 4096), 0);
  const auto with = [&](auto attempt) {
    const pid_t pid = ::fork();
    if (pid == 0) {
      if (!lock_down({.images = {image}, .ram_fd = ram, .ram_bytes = 4096})) ::_exit(99);
      attempt();
      ::_exit(7);
    }
    int status = 0;
    ::waitpid(pid, &status, 0);
    return status;
  };
  EXPECT_TRUE(survived(with([&] {
    off_t at = 0;
    if (::lseek(ram, 0, SEEK_SET) != 0 || ::sendfile(ram, image, &at, 4096) != 4096 || ::close(image) != 0) ::_exit(1);
  })));
  EXPECT_TRUE(killed(with([&] { ::sendfile(image, ram, nullptr, 1); })));
  EXPECT_TRUE(killed(with([&] { ::sendfile(ram, other, nullptr, 1); })));
  EXPECT_TRUE(killed(with([&] { ::sendfile(other, image, nullptr, 1); })));
  EXPECT_TRUE(killed(with([&] { ::close(other); })));
  EXPECT_TRUE(killed(with([&] { ::lseek(other, 0, SEEK_SET); })));
  EXPECT_TRUE(killed(with([&] { [[maybe_unused]] ssize_t n = ::write(ram, "x", 1); })));
  for (const int fd : {ram, image, other}) ::close(fd);
}

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

// A kernel without 32-bit emulation answers with #GP: there is nothing to go around.
bool host_has_32_bit_calls() {
  const pid_t pid = ::fork();
  if (pid == 0) {
    long r;
    asm volatile("int $0x80" : "=a"(r) : "a"(20) : "memory");
    ::_exit(7);
  }
  int status = 0;
  ::waitpid(pid, &status, 0);
  return survived(status);
}

TEST(Sandbox, ThirtyTwoBitCallsAreNoWayAround) {
  EXPECT_KILLED(::syscall(0x40000000 + SYS_getpid));  // x32
  if (!host_has_32_bit_calls()) GTEST_SKIP() << "this host's kernel has no 32-bit calls";
  EXPECT_KILLED(long r; asm volatile("int $0x80" : "=a"(r) : "a"(20) : "memory"));
}

// The whole process, not the thread that tried: the others would go on.
TEST(Sandbox, AThreadThatMakesThemTakesTheProcessAlong) {
  const bool has_32_bit = host_has_32_bit_calls();
  const pid_t pid = ::fork();
  if (pid == 0) {
    std::atomic<bool> go{false};
    std::thread other{[&] {
      while (!go) {
      }
      long r = 0;
      if (has_32_bit)
        asm volatile("int $0x80" : "=a"(r) : "a"(20) : "memory");
      else
        ::syscall(0x40000000 + SYS_getpid);
    }};
    if (!lock_down({})) ::_exit(99);
    go = true;
    timespec now, start;
    ::clock_gettime(CLOCK_MONOTONIC, &start);
    do ::clock_gettime(CLOCK_MONOTONIC, &now);
    while (now.tv_sec - start.tv_sec < 10);
    ::_exit(7);
  }
  int status = 0;
  ::waitpid(pid, &status, 0);
  EXPECT_TRUE(killed(status));
}

TEST(Sandbox, MappingsAreMovedOnlyAsReallocDoesIt) {
  static void* page = ::mmap(nullptr, 2 * kPageSize, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  EXPECT_ALLOWED(if (::mremap(page, 2 * kPageSize, 64 * kPageSize, MREMAP_MAYMOVE) == MAP_FAILED)::_exit(1));
  EXPECT_KILLED(::mremap(page, 0, kPageSize, MREMAP_MAYMOVE));  // a second mapping of the same
  EXPECT_KILLED(::mremap(page, kPageSize, kPageSize, MREMAP_MAYMOVE | MREMAP_FIXED, page));
  EXPECT_KILLED(::mremap(page, kPageSize, kPageSize, MREMAP_MAYMOVE | 4));  // MREMAP_DONTUNMAP
}

// Touches nothing: what counts is what may be had.
bool can_map(u64 bytes, int protection) {
  void* at = ::mmap(nullptr, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return at != MAP_FAILED && ::munmap(at, bytes) == 0;
}

TEST(Sandbox, MemoryGrowsByAnAllowanceBeyondWhatWasMapped) {
  // As an engine's tables: far more than the allowance, and no matter.
  void* tables =
      ::mmap(nullptr, u64{1} << 40, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  ASSERT_NE(tables, MAP_FAILED);
  EXPECT_ALLOWED(if (!can_map(data_allowance(1) - 16 * MiB, PROT_READ | PROT_WRITE))::_exit(1));
  EXPECT_ALLOWED(if (can_map(data_allowance(1) + 16 * MiB, PROT_READ | PROT_WRITE))::_exit(1));
  EXPECT_ALLOWED(if (!can_map(address_space_allowance(1) - 16 * MiB, PROT_NONE))::_exit(1));
  EXPECT_ALLOWED(if (can_map(address_space_allowance(1) + 16 * MiB, PROT_NONE))::_exit(1));
  ::munmap(tables, u64{1} << 40);
}

TEST(Sandbox, ProcessorTimeEnds) {
  const pid_t pid = ::fork();
  if (pid == 0) {
    if (!lock_down({.cpu_seconds = 1})) ::_exit(99);
    for (;;) asm volatile("");  // not sched_yield(): beside other work it takes next to no time
  }
  int status = 0;
  ::waitpid(pid, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << status;
}

TEST(Sandbox, WhatTheCoreNeedsWorks) {
  EXPECT_ALLOWED(void* p = ::mmap(nullptr, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
                 *static_cast<char*>(p) = 1; ::munmap(p, 1 << 20));
  EXPECT_ALLOWED(delete[] new char[64 << 20]);
  EXPECT_ALLOWED(timespec t; ::clock_gettime(CLOCK_MONOTONIC, &t));
  EXPECT_ALLOWED(::sched_yield());
}

// What the compiler's checks call. libc would write a line first; the filter must not turn that into a SIGSYS.
extern "C" [[noreturn]] void __stack_chk_fail();
extern "C" [[noreturn]] void __chk_fail();

TEST(Sandbox, WhatLibcNoticesEndsAsAnAbort) {
  for (void (*noticed)() : {__stack_chk_fail, __chk_fail}) {
    const int status = behind_the_filter([noticed] { noticed(); });
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT) << status;
  }
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
    if (!lock_down({})) ::_exit(99);
    go = true;
    for (;;) ::sched_yield();
  }
  int status = 0;
  ::waitpid(pid, &status, 0);
  EXPECT_TRUE(killed(status));
}

}  // namespace
}  // namespace trapline::core
