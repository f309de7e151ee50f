// trapline exec: a command in a VM, as if it ran here.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pty.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <numeric>

#include "support/disk_image.h"
#include "support/process.h"

namespace trapline::test {
namespace {

namespace fs = std::filesystem;
using std::chrono::seconds;
using testing::HasSubstr;

constexpr seconds kLimit{120};

// A scratch folder, which is the current one.
struct Exec : testing::Test {
  fs::path folder, before = fs::current_path();
  Exec() {
    char name[] = "/tmp/trapline-exec-XXXXXX";
    folder = ::mkdtemp(name);
    fs::current_path(folder);
  }
  ~Exec() override {
    fs::current_path(before);
    fs::remove_all(folder);
  }
  void SetUp() override {
    if (!fs::exists(GUEST_CACHE "/kernels/amd64/modules")) GTEST_SKIP() << "scripts/guest-kernel.sh amd64 fetches it";
  }

  static std::vector<std::string> words(const std::vector<std::string>& options,
                                        const std::vector<std::string>& command) {
    std::vector<std::string> all{"env",      "TRAPLINE_CACHE=" GUEST_CACHE,       TRAPLINE_EXECUTABLE, "exec",
                                 "--kernel", GUEST_CACHE "/kernels/amd64/vmlinuz"};
    all.insert(all.end(), options.begin(), options.end());
    all.emplace_back("--");
    all.insert(all.end(), command.begin(), command.end());
    return all;
  }
  static Finished exec(const std::vector<std::string>& options, const std::vector<std::string>& command,
                       std::string_view input = {}) {
    return run(words(options, command), input, kLimit, {.merge_stderr = false, .environment = {}});
  }
  static Finished shell(const std::string& script, std::string_view input = {},
                        const std::vector<std::string>& options = {}) {
    return exec(options, {"sh", "-c", script}, input);
  }
};

TEST_F(Exec, IsTheCommandAndNothingElse) {
  const Finished f = exec({}, {"true"});
  EXPECT_EQ(f.code, 0) << f.errors;
  EXPECT_EQ(f.output, "");
  EXPECT_EQ(f.errors, "");
}

TEST_F(Exec, StreamsAreApartAndWhole) {
  const Finished f = shell("cat; echo to-error >&2; echo to-output", "from input\n");
  EXPECT_EQ(f.code, 0);
  EXPECT_EQ(f.output, "from input\nto-output\n");
  EXPECT_EQ(f.errors, "to-error\n");
}

TEST_F(Exec, BytesOfAllKindsComeThrough) {
  std::string bytes(3'000'000, 0);
  for (std::size_t i = 0; i < bytes.size(); i++) bytes[i] = static_cast<char>(i * 7 + i / 256);
  std::ofstream{"bytes"} << bytes;
  const Finished f =
      run({"sh", "-c",
           fmt::format("{} exec --kernel {}/kernels/amd64/vmlinuz -- cat <bytes", TRAPLINE_EXECUTABLE, GUEST_CACHE)},
          {}, kLimit, {.merge_stderr = false, .environment = {}});
  EXPECT_EQ(f.code, 0) << f.errors;
  EXPECT_TRUE(f.output == bytes) << f.output.size();
}

TEST_F(Exec, EndsAsTheCommandDoes) {
  EXPECT_EQ(shell("exit 7").code, 7);
  EXPECT_EQ(shell("kill -SEGV $$").code, 128 + SIGSEGV);
  const Finished none = exec({}, {"no-such-command"});
  EXPECT_EQ(none.code, 127);
  EXPECT_THAT(none.errors, HasSubstr("no-such-command"));
  std::ofstream{"text"} << "text";
  EXPECT_EQ(exec({}, {"./text"}).code, 126);
}

TEST_F(Exec, IsItsUserInItsFolder) {
  const Finished f = shell("id -u; id -g; pwd; umask; echo \"$HOME $GIVEN [$HIDDEN]\"; uname -r", {},
                           {"--env", "GIVEN=a b=c", "--env", "HOME"});
  EXPECT_EQ(f.code, 0) << f.errors;
  const mode_t mask = ::umask(0);
  ::umask(mask);
  EXPECT_THAT(f.output, testing::StartsWith(fmt::format("{}\n{}\n{}\n{:04o}\n{} a b=c []\n", ::getuid(), ::getgid(),
                                                        folder.string(), mask, ::getenv("HOME"))));
  EXPECT_THAT(f.output, HasSubstr("-amd64"));
  fs::create_directory("below");
  EXPECT_EQ(exec({"--workdir", "below"}, {"pwd"}).output, (folder / "below").string() + "\n");
}

TEST_F(Exec, FilesOfTheFolderAreTheHosts) {
  std::ofstream{"in"} << "host\n";
  const Finished f = shell(
      "cat in && echo guest >out && mkdir -p d && echo deep >d/f && ln -s in link && chmod 600 out "
      "&& mv d e && touch /usr/trapline-test && ls /usr/trapline-test");
  EXPECT_EQ(f.code, 0) << f.errors;
  EXPECT_THAT(f.output, HasSubstr("host\n"));
  std::string line;
  std::getline(std::ifstream{"out"}, line);
  EXPECT_EQ(line, "guest");
  std::getline(std::ifstream{"e/f"}, line);
  EXPECT_EQ(line, "deep");
  EXPECT_EQ(fs::read_symlink("link"), "in");
  EXPECT_EQ(fs::status("out").permissions(), fs::perms{0600});
  EXPECT_FALSE(fs::exists("/usr/trapline-test")) << "the host's root is never written";
}

TEST_F(Exec, ASharedFolderMayBeReadOnly) {
  std::ofstream{"in"} << "host\n";
  const Finished f = shell("cat in; echo x >in", {}, {"--share", ".:readonly"});
  EXPECT_NE(f.code, 0);
  EXPECT_EQ(f.output, "host\n");
  EXPECT_EQ(fs::file_size("in"), 5u);
}

TEST_F(Exec, WhatNobodyReadsStopsTheCommand) {
  Process p{{"sh", "-c",
             fmt::format("{} exec --kernel {}/kernels/amd64/vmlinuz -- sh -c 'yes; echo end >out' | head -n 3",
                         TRAPLINE_EXECUTABLE, GUEST_CACHE)}};
  EXPECT_EQ(p.wait_exit(kLimit), 0);
  EXPECT_EQ(p.output(), "y\ny\ny\n");
  EXPECT_TRUE(fs::exists("out"));
}

TEST_F(Exec, SignalsGoToTheCommand) {
  Process p{words({}, {"sh", "-c", "trap 'echo told; exit 3' TERM; echo ready; while :; do sleep 0.1; done"})};
  ASSERT_TRUE(p.wait_for("ready", kLimit)) << p.output();
  p.signal(SIGTERM);
  EXPECT_EQ(p.wait_exit(kLimit), 3);
  EXPECT_THAT(p.output(), HasSubstr("told"));
}

TEST_F(Exec, TimeAndFailureHaveCodesOfTheirOwn) {
  EXPECT_EQ(exec({"--timeout", "8"}, {"sleep", "1000"}).code, 124);
  const Finished kernel = run({TRAPLINE_EXECUTABLE, "exec", "--kernel", "/nonexistent", "--", "true"}, {}, kLimit,
                              {.merge_stderr = false, .environment = {}});
  EXPECT_EQ(kernel.code, 125);
  EXPECT_THAT(kernel.errors, HasSubstr("/nonexistent"));
  EXPECT_EQ(run({TRAPLINE_EXECUTABLE, "exec"}).code, 125);
  EXPECT_EQ(run({TRAPLINE_EXECUTABLE, "exec", "--no-such", "--", "true"}).code, 125);
  const Finished died = shell("echo c >/proc/sysrq-trigger; sleep 100");
  if (::getuid() == 0) {
    EXPECT_EQ(died.code, 125) << died.errors;
  }
}

TEST_F(Exec, GitAndMakeWorkInTheFolder) {
  if (run({"sh", "-c", "command -v git && command -v make && command -v cc"}).code != 0)
    GTEST_SKIP() << "no tools here";
  const std::string setup =
      "git init -q a && cd a && git config user.email a@b && git config user.name n && "
      "printf 'all: p\\np: m.o f.o\\n\\tcc -o p m.o f.o\\n%%.o: %%.c\\n\\tcc -c $<\\n' >Makefile && "
      "echo 'int f(void); int main(void) { return f(); }' >m.c && echo 'int f(void) { return 42; }' >f.c && "
      "git add . && git commit -qm one";
  ASSERT_EQ(run({"sh", "-c", setup}).code, 0);
  const Finished f = shell("HOME=/tmp git clone -q a b && cd b && make -s && git status --porcelain && ./p");
  EXPECT_EQ(f.code, 42) << f.errors;
  EXPECT_THAT(f.output, HasSubstr("?? p"));
  EXPECT_EQ(run({"b/p"}).code, 42) << "what was linked in the VM runs here";
  EXPECT_EQ(run({"git", "-C", "b", "fsck"}).code, 0);
}

// A terminal here is a terminal there: its size, Ctrl-C as a signal, the exit code.
TEST_F(Exec, ATerminalIsPassedOn) {
  const winsize size{33, 101, 0, 0};
  int terminal = -1;
  std::vector<std::string> all = words(
      {},
      {"sh", "-c", "trap 'echo int; stty size; exit 42' INT; tty; stty size; echo ready; while :; do sleep 0.1; done"});
  std::vector<char*> argv;
  for (std::string& word : all) argv.push_back(word.data());
  argv.push_back(nullptr);
  const pid_t pid = ::forkpty(&terminal, nullptr, nullptr, &size);
  if (pid == 0) {
    ::execvp(argv[0], argv.data());
    ::_exit(127);
  }
  std::string seen;
  const auto read_until = [&](const char* text) {
    char bytes[512];
    for (ssize_t n; seen.find(text) == std::string::npos && (n = ::read(terminal, bytes, sizeof bytes)) > 0;)
      seen.append(bytes, static_cast<std::size_t>(n));
    return seen.find(text) != std::string::npos;
  };
  EXPECT_TRUE(read_until("ready")) << seen;
  EXPECT_THAT(seen, testing::AllOf(HasSubstr("/dev/pts/"), HasSubstr("33 101")));
  const winsize other{20, 60, 0, 0};
  ::ioctl(terminal, TIOCSWINSZ, &other);
  ::usleep(300'000);
  EXPECT_EQ(::write(terminal, "\x03", 1), 1);
  EXPECT_TRUE(read_until("20 60")) << seen;
  int status = 0;
  ASSERT_EQ(::waitpid(pid, &status, 0), pid);
  EXPECT_EQ(WEXITSTATUS(status), 42);
  ::close(terminal);
}

TEST_F(Exec, ANetworkIsThereWhenItIsAskedFor) {
  EXPECT_EQ(shell("ls /sys/class/net").output, "lo\n") << "none unless";
  const Finished f =
      shell("cat /etc/resolv.conf /proc/net/route; cat /sys/class/net/eth0/operstate", {}, {"--net", "user"});
  EXPECT_EQ(f.code, 0) << f.errors;
  EXPECT_THAT(f.output, HasSubstr("nameserver 10.0.2.3\n"));
  EXPECT_THAT(f.output, testing::ContainsRegex("eth0\t00000000\t0202000A"));
  const Finished tap = exec({"--net", "tap,ifname=x"}, {"true"});
  EXPECT_EQ(tap.code, 125);
  EXPECT_THAT(tap.errors, HasSubstr("--net tap,ifname=x"));
}

TEST_F(Exec, ADiskIsTheCommands) {
  std::ofstream{"disk"} << std::string(1 << 20, 'x');
  const Finished f =
      shell("printf written | dd of=/dev/vda conv=fsync 2>/dev/null; head -c 9 /dev/vda", {}, {"--disk", "disk"});
  EXPECT_EQ(f.output, "writtenxx") << f.errors;
  std::string text(9, ' ');
  std::ifstream{"disk"}.read(text.data(), 9);
  EXPECT_EQ(text, "writtenxx");
}

TEST_F(Exec, TheRootMayBeADisk) {
  if (!LinuxDisk::possible()) GTEST_SKIP() << "no busybox or mke2fs here";
  const LinuxDisk disk{"mine"};
  const std::string untouched = run({"md5sum", disk.path()}).output;
  const Finished f =
      exec({"--rootfs", disk.path()}, {"/bin/busybox", "sh", "-c",
                                       "/bin/busybox cat /sbin/init && echo x >/etc/new && "
                                       "/bin/busybox grep -c 'overlay / ' /proc/mounts || echo none; pwd"});
  EXPECT_EQ(f.code, 0) << f.errors;
  EXPECT_THAT(f.output, testing::StartsWith("mine"));
  EXPECT_THAT(f.output, HasSubstr(folder.string()));
  EXPECT_EQ(run({"md5sum", disk.path()}).output, untouched);
  const Finished none = exec({"--rootfs", "no-such-image"}, {"true"});
  EXPECT_EQ(none.code, 125);
  EXPECT_THAT(none.errors, HasSubstr("--rootfs no-such-image"));
}

}  // namespace
}  // namespace trapline::test
