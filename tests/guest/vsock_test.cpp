// A Debian kernel with --vsock: many connections at once, both ways, each with more than its credit.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <thread>

#include "support/engines.h"
#include "support/process.h"

namespace trapline::test {
namespace {

using std::chrono::seconds;
using testing::HasSubstr;

constexpr unsigned kCount = 12, kHostPort = 1053, kGuestPort = 52;

sockaddr_un at(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

bool send_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n <= 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(n));
  }
  return true;
}

std::string read_to_end(int fd) {
  std::string text;
  char some[16384];
  for (ssize_t n; (n = ::read(fd, some, sizeof some)) > 0;) text.append(some, static_cast<std::size_t>(n));
  return text;
}

// Sends back what comes, on every connection.
class Echo {
 public:
  explicit Echo(const std::string& path) {
    const sockaddr_un address = at(path);
    EXPECT_EQ(::bind(listener_, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    ::listen(listener_, 64);
    thread_ = std::thread{[this] {
      for (int fd; (fd = ::accept(listener_, nullptr, nullptr)) >= 0;)
        connections_.emplace_back([fd] {
          char some[10000];
          for (ssize_t n; (n = ::read(fd, some, sizeof some)) > 0;)
            if (!send_all(fd, {some, static_cast<std::size_t>(n)})) break;
          ::close(fd);
        });
    }};
  }
  ~Echo() {
    ::shutdown(listener_, SHUT_RDWR);
    thread_.join();
    for (auto& c : connections_) c.join();
    ::close(listener_);
  }

 private:
  int listener_ = ::socket(AF_UNIX, SOCK_STREAM, 0);
  std::thread thread_;
  std::vector<std::thread> connections_;
};

// What the guest sends back of a million bytes; the first line must be "OK port".
std::string ask(const std::string& path, const std::string& text) {
  const int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
  const sockaddr_un address = at(path);
  EXPECT_EQ(::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  std::thread sender{[&] {
    send_all(fd, fmt::format("CONNECT {}\n", kGuestPort) + text);
    ::shutdown(fd, SHUT_WR);
  }};
  const std::string back = read_to_end(fd);
  sender.join();
  ::close(fd);
  EXPECT_TRUE(back.starts_with("OK ")) << back.substr(0, 40);
  return back.substr(back.find('\n') + 1);
}

class GuestVsock : public testing::TestWithParam<const char*> {
 protected:
  std::string folder_ = "/tmp/trapline-vsock-XXXXXX";
  void SetUp() override {
    SKIP_UNLESS_OFFERED(GetParam());
    ASSERT_NE(::mkdtemp(folder_.data()), nullptr);
  }
  ~GuestVsock() override { run({"rm", "-rf", folder_}); }
};

TEST_P(GuestVsock, ManyConnectionsBothWays) {
  const std::string socket = folder_ + "/sock", image = folder_ + "/image",
                    kernel = fmt::format("{}/kernels/cloud-amd64", GUEST_CACHE);
  run({"mkdir", folder_ + "/root"});
  run({"cp", DISK_PROGRAMS "/vsock", folder_ + "/root/vsock"});
  ASSERT_EQ(run({"/sbin/mke2fs", "-q", "-t", "ext4", "-d", folder_ + "/root", image, "8M"}).code, 0);
  Echo echo{fmt::format("{}_{}", socket, kHostPort)};
  Process vm{{TRAPLINE_EXECUTABLE,
              "run",
              "--engine",
              GetParam(),
              "--kernel",
              kernel + "/vmlinuz",
              "--initrd",
              kernel + "/initrd",
              "--memory",
              "128M",
              "--cpus",
              "2",
              "--timeout",
              "200",
              "--disk",
              image + ",readonly",
              "--vsock",
              fmt::format("cid=7,path={}", socket),
              "--append",
              fmt::format("console=ttyS0 trapline.run=program trapline.program=vsock,{},{},{} "
                          "trapline.modules=virtio_pci,virtio_blk,vmw_vsock_virtio_transport",
                          kHostPort, kGuestPort, kCount)}};
  ASSERT_TRUE(vm.wait_for("guest-test: listening", seconds{150})) << vm.output();
  EXPECT_THAT(vm.output(), HasSubstr(fmt::format("guest-test: to the host {}, 0 wrong", kCount)));
  EXPECT_THAT(vm.output(), HasSubstr("guest-test: nobody there: Connection reset by peer"));
  std::vector<std::thread> askers;
  std::atomic<unsigned> right{0};
  for (unsigned i = 0; i < kCount; i++)
    askers.emplace_back([&, i] {
      std::string text;
      while (text.size() < 1'000'000) text += fmt::format("{} {}\n", i, text.size() * 2654435761u);
      right += ask(socket, text) == text;
    });
  for (auto& a : askers) a.join();
  EXPECT_EQ(right, kCount);
  EXPECT_EQ(vm.wait_exit(seconds{60}), 0) << vm.output();
  EXPECT_THAT(vm.output(), HasSubstr(fmt::format("guest-test: of the host's {}, 0 wrong", kCount)));
  EXPECT_NE(::access(socket.c_str(), F_OK), 0) << "the socket is still there";
}

INSTANTIATE_TEST_SUITE_P(Engines, GuestVsock, testing::Values("translate", "patch"),
                         [](const auto& engine) { return std::string{engine.param}; });

}  // namespace
}  // namespace trapline::test
