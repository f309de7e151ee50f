// --gdb PATH: a socket that only this user may connect to, and that is gone with the VM.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "support/process.h"
#include "support/tiny_guest.h"

namespace trapline::test {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;

struct GdbSocket : testing::Test {
  GdbSocket() { ::unlink(path.c_str()); }
  ~GdbSocket() override { ::unlink(path.c_str()); }
  std::vector<std::string> command() const {
    return {TRAPLINE_EXECUTABLE, "run", "--memory", "64M", "--kernel", kernel.path(), "--gdb", path};
  }
  int open_socket(bool listening) const {
    const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    const auto* at = reinterpret_cast<const sockaddr*>(&address);
    EXPECT_EQ(listening ? ::bind(fd, at, sizeof address) : ::connect(fd, at, sizeof address), 0);
    if (listening) ::listen(fd, 1);
    return fd;
  }
  const std::string path = "/tmp/trapline-gdb-" + std::to_string(::getpid());
  const TempFile kernel{multiboot(prints("up", loops_for_ever()))};
};

TEST_F(GdbSocket, IsForThisUserAloneAndGoesWithTheVm) {
  Process vm{command()};
  ASSERT_TRUE(vm.wait_for("up", 20s)) << vm.output();
  struct stat made {};
  ASSERT_EQ(::lstat(path.c_str(), &made), 0);
  EXPECT_EQ(made.st_mode, S_IFSOCK | 0600u);
  const int client = open_socket(false);
  const std::string ask = "$?#3f";
  ASSERT_EQ(::write(client, ask.data(), ask.size()), static_cast<ssize_t>(ask.size()));
  std::string got;
  char byte;
  while (got.find('#') == std::string::npos && ::read(client, &byte, 1) == 1) got += byte;
  EXPECT_THAT(got, HasSubstr("$T"));
  ::close(client);
  vm.signal(SIGTERM);
  EXPECT_EQ(vm.wait_exit(20s), 143) << vm.output();
  EXPECT_NE(::lstat(path.c_str(), &made), 0);
}

TEST_F(GdbSocket, TakesThePlaceOfADeadOneOnly) {
  const int other = open_socket(true);
  const Finished refused = run(command());
  EXPECT_EQ(refused.code, 3);
  EXPECT_THAT(refused.output, HasSubstr("--gdb " + path + ": Address already in use: remove it"));
  EXPECT_EQ(::access(path.c_str(), F_OK), 0);
  ::close(other);  // the name stays
  Process vm{command()};
  EXPECT_TRUE(vm.wait_for("up", 20s)) << vm.output();
}

TEST_F(GdbSocket, NeverReplacesAFile) {
  { std::ofstream{path} << "precious"; }
  const Finished refused = run(command());
  EXPECT_EQ(refused.code, 3);
  std::ifstream in{path};
  EXPECT_EQ((std::string{std::istreambuf_iterator<char>{in}, {}}), "precious");
}

}  // namespace
}  // namespace trapline::test
