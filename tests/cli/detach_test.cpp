// A VM without a terminal: started, found, talked to, left, and its log read afterwards.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pty.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "support/process.h"
#include "support/tiny_guest.h"

namespace trapline::test {
namespace {

using std::chrono::seconds;
using testing::HasSubstr;

struct Detached : testing::Test {
  std::filesystem::path folder;
  Detached() {
    char name[] = "/tmp/trapline-detach-XXXXXX";
    folder = ::mkdtemp(name);
  }
  ~Detached() override {
    trapline({"kill", "web"});
    std::filesystem::remove_all(folder);
  }
  Process::Options here() const {
    return {.merge_stderr = true,
            .environment = {"XDG_RUNTIME_DIR=" + folder.string(), "XDG_STATE_HOME=" + folder.string() + "/state"}};
  }
  Finished trapline(std::vector<std::string> words, std::string_view input = {}) const {
    words.insert(words.begin(), TRAPLINE_EXECUTABLE);
    return run(words, input, seconds{60}, here());
  }
};

TEST_F(Detached, IsFoundAndTalkedToAndStopped) {
  const TempFile kernel{multiboot(prints("up", echoes()))};
  const Finished started = trapline({"run", "--detach", "--name", "web", "--memory", "64M", "--kernel", kernel.path()});
  EXPECT_EQ(started.code, 0) << started.output;
  EXPECT_EQ(started.output, "web\n");
  EXPECT_THAT(trapline({"ps"}).output, HasSubstr("web"));
  Process console{{TRAPLINE_EXECUTABLE, "console", "web"}, here()};
  ASSERT_TRUE(console.wait_for("up", seconds{30})) << "what it said before";
  console.send("hello");
  EXPECT_TRUE(console.wait_for("hello", seconds{30})) << console.output();
  Process second{{TRAPLINE_EXECUTABLE, "console", "web"}, here()};
  EXPECT_TRUE(second.wait_for("uphello", seconds{30}));
  EXPECT_EQ(trapline({"stop", "web"}).code, 0);
  EXPECT_EQ(console.wait_exit(seconds{30}), 0) << "it ends with the VM";
  EXPECT_EQ(second.wait_exit(seconds{30}), 0);
  EXPECT_THAT(trapline({"logs", "web"}).output, HasSubstr("uphello"));
  EXPECT_THAT(trapline({"logs", "--follow", "web"}).output, HasSubstr("uphello")) << "and ends, as the VM has";
  EXPECT_EQ(trapline({"console", "web"}).code, 3);
  EXPECT_TRUE(std::filesystem::is_empty(folder / "trapline"));
}

// Ctrl-A D on a terminal leaves the VM as it is.
TEST_F(Detached, IsLeft) {
  const TempFile kernel{multiboot(prints("up", echoes()))};
  ASSERT_EQ(trapline({"run", "--detach", "--name", "web", "--memory", "64M", "--kernel", kernel.path()}).code, 0);
  ::setenv("XDG_RUNTIME_DIR", folder.c_str(), 1);
  int terminal = -1;
  const pid_t pid = ::forkpty(&terminal, nullptr, nullptr, nullptr);
  if (pid == 0) {
    ::execl(TRAPLINE_EXECUTABLE, TRAPLINE_EXECUTABLE, "console", "web", nullptr);
    ::_exit(127);
  }
  ::unsetenv("XDG_RUNTIME_DIR");
  std::string seen;
  char bytes[512];
  for (ssize_t n; seen.find("up") == std::string::npos && (n = ::read(terminal, bytes, sizeof bytes)) > 0;)
    seen.append(bytes, static_cast<std::size_t>(n));
  EXPECT_THAT(seen, HasSubstr("Ctrl-A D"));
  ASSERT_EQ(::write(terminal,
                    "\x01"
                    "d",
                    2),
            2);
  int status = 0;
  ASSERT_EQ(::waitpid(pid, &status, 0), pid);
  EXPECT_EQ(WEXITSTATUS(status), 0);
  ::close(terminal);
  EXPECT_THAT(trapline({"ps"}).output, HasSubstr("web"));
}

TEST_F(Detached, WhatEndsAtOnceSaysWhy) {
  const Finished none = trapline({"run", "--detach", "--kernel", "/dev/null"});
  EXPECT_EQ(none.code, 3) << none.output;
  EXPECT_THAT(none.output, HasSubstr("/dev/null"));
  EXPECT_EQ(trapline({"console"}).code, 2);
  EXPECT_EQ(trapline({"logs"}).code, 2);
  EXPECT_EQ(trapline({"logs", "web"}).code, 3);
  EXPECT_EQ(trapline({"console", "web"}).code, 3);
}

TEST_F(Detached, IsAskedForMemory) {
  const TempFile kernel{multiboot(prints("up", loops_for_ever()))};
  const auto start = [&](std::vector<std::string> more) {
    std::vector<std::string> words{"run", "--detach", "--name", "web", "--memory", "64M", "--kernel", kernel.path()};
    words.insert(words.end(), more.begin(), more.end());
    return trapline(words).code;
  };
  ASSERT_EQ(start({"--balloon", "8M"}), 0);
  EXPECT_THAT(trapline({"balloon", "web"}).output, HasSubstr("web: shall give away 8 MiB, has given away 0 MiB"));
  EXPECT_EQ(trapline({"balloon", "web", "16M"}).code, 0);
  EXPECT_THAT(trapline({"balloon", "web"}).output, HasSubstr("shall give away 16 MiB"));
  const Finished all = trapline({"balloon", "web", "64M"});
  EXPECT_EQ(all.code, 3);
  EXPECT_THAT(all.output, HasSubstr("balloon web: it has 64 MiB of memory: give less"));
  EXPECT_EQ(trapline({"balloon", "web", "much"}).code, 2);
  EXPECT_EQ(trapline({"balloon"}).code, 2);
  trapline({"kill", "web"});
  EXPECT_EQ(trapline({"balloon", "web"}).code, 3);
  ASSERT_EQ(start({}), 0);
  EXPECT_THAT(trapline({"balloon", "web", "1M"}).output, HasSubstr("start it with --balloon 0"));
}

TEST_F(Detached, ATerminalOfItsOwnIsNotShared) {
  const TempFile kernel{multiboot(prints("up", loops_for_ever()))};
  Process vm{{TRAPLINE_EXECUTABLE, "run", "--name", "web", "--memory", "64M", "--kernel", kernel.path()}, here()};
  ASSERT_TRUE(vm.wait_for("up", seconds{60}));
  const Finished console = trapline({"console", "web"});
  EXPECT_EQ(console.code, 3);
  EXPECT_THAT(console.output, HasSubstr("--detach"));
}

}  // namespace
}  // namespace trapline::test
