// A process that serves a folder has been taken over and tries to get out: each attempt is made by a process that closed
// itself in as that one does.
#include "share/sandbox.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <functional>
#include <latch>
#include <thread>

namespace trapline::share {
namespace {

constexpr int kYes = 7, kNo = 8;

struct ShareSandbox : testing::Test {
  std::filesystem::path outside, folder;
  ShareSandbox() {
    char name[] = "/tmp/trapline-share-XXXXXX";
    outside = ::mkdtemp(name);
    folder = outside / "folder";
    std::filesystem::create_directory(folder);
    std::ofstream{outside / "secret"} << "secret";
    std::ofstream{folder / "file"} << "file";
  }
  ~ShareSandbox() override { std::filesystem::remove_all(outside); }

  // The wait status of a process that closes itself in and then tries it; `attempt` says whether it succeeded.
  int behind(const std::function<bool(int)>& attempt, bool readonly = false) {
    const pid_t pid = ::fork();
    if (pid == 0) {
      const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
      harden_process();
      if (!restrict_files({fd, readonly}) || !filter_calls()) ::_exit(99);
      ::_exit(attempt(fd) ? kYes : kNo);
    }
    int status = 0;
    ::waitpid(pid, &status, 0);
    return status;
  }
  bool works(const std::function<bool(int)>& attempt, bool readonly = false) {
    const int status = behind(attempt, readonly);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) != 99) << status;
    return WIFEXITED(status) && WEXITSTATUS(status) == kYes;
  }
  bool kills(const std::function<void()>& attempt) {
    const int status = behind([&](int) { return attempt(), true; });
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS;
  }
};

TEST_F(ShareSandbox, NothingButFiles) {
  EXPECT_TRUE(kills([] { ::socket(AF_INET, SOCK_STREAM, 0); }));
  EXPECT_TRUE(kills([] { ::socket(AF_UNIX, SOCK_STREAM, 0); }));
  EXPECT_TRUE(kills([] { ::fork(); }));
  EXPECT_TRUE(kills([] { ::execl("/bin/true", "true", nullptr); }));
  EXPECT_TRUE(kills([] { ::kill(::getppid(), SIGTERM); }));
  EXPECT_TRUE(kills([] { ::ptrace(PTRACE_ATTACH, 1, 0, 0); }));
  EXPECT_TRUE(kills([] { ::syscall(SYS_io_uring_setup, 1, nullptr); }));
  EXPECT_TRUE(kills([] { ::syscall(SYS_memfd_create, "x", 0); }));
  EXPECT_TRUE(kills([] { ::syscall(SYS_mount, "/", "/", "", 0, nullptr); }));
  EXPECT_TRUE(kills([] { ::syscall(SYS_prctl, 0); }));
}

// Requests are answered by threads that were there before the filter.
TEST_F(ShareSandbox, HoldsForEachThread) {
  const pid_t pid = ::fork();
  if (pid == 0) {
    harden_process();
    std::latch up{1};
    std::atomic<bool> go{false};
    std::thread other{[&] {
      up.count_down();
      go.wait(false);
      ::socket(AF_INET, SOCK_STREAM, 0);
      ::_exit(kYes);
    }};
    up.wait();
    if (!filter_calls()) ::_exit(99);
    go = true;
    go.notify_one();
    other.join();
  }
  int status = 0;
  ::waitpid(pid, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS) << status;
}

TEST_F(ShareSandbox, FilesOfTheFolderAndNoOthers) {
  EXPECT_TRUE(works([](int fd) { return ::openat(fd, "file", O_RDWR) >= 0; }));
  EXPECT_TRUE(works([](int fd) { return ::openat(fd, "new", O_RDWR | O_CREAT, 0600) >= 0; }));
  EXPECT_TRUE(works([](int fd) { return ::mkdirat(fd, "d", 0700) == 0 && ::renameat(fd, "new", fd, "d/new") == 0; }));
  if (landlock_version() < 2) GTEST_SKIP() << "this kernel has no Landlock";
  const std::string secret = outside / "secret", made = outside / "made";
  EXPECT_FALSE(works([&](int) { return ::open(secret.c_str(), O_RDONLY) >= 0; }));
  EXPECT_FALSE(works([&](int fd) { return ::openat(fd, "../secret", O_RDONLY) >= 0; }));
  EXPECT_FALSE(works([&](int) { return ::open("/etc/passwd", O_RDONLY) >= 0; }));
  EXPECT_FALSE(works([&](int) { return ::open(made.c_str(), O_RDWR | O_CREAT, 0600) >= 0; }));
  EXPECT_FALSE(works([&](int fd) { return ::linkat(AT_FDCWD, secret.c_str(), fd, "mine", 0) == 0; }));
  EXPECT_FALSE(works([&](int fd) { return ::renameat(AT_FDCWD, secret.c_str(), fd, "mine") == 0; }));
  EXPECT_FALSE(works([&](int) { return ::unlinkat(AT_FDCWD, secret.c_str(), 0) == 0; }));
  EXPECT_FALSE(works([&](int fd) { return ::mknodat(fd, "null", S_IFCHR | 0666, 0x103) == 0; }));
}

TEST_F(ShareSandbox, ReadOnlyIsAlsoTheKernelsBusiness) {
  EXPECT_TRUE(works([](int fd) { return ::openat(fd, "file", O_RDONLY) >= 0; }, true));
  if (landlock_version() < 2) GTEST_SKIP() << "this kernel has no Landlock";
  EXPECT_FALSE(works([](int fd) { return ::openat(fd, "file", O_RDWR) >= 0; }, true));
  EXPECT_FALSE(works([](int fd) { return ::mkdirat(fd, "d", 0700) == 0; }, true));
  EXPECT_FALSE(works([](int fd) { return ::unlinkat(fd, "file", 0) == 0; }, true));
}

}  // namespace
}  // namespace trapline::share
