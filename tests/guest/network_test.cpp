// A Debian kernel on `--net user`: it reaches the host, the host reaches it by a forwarded port, and `restrict` stops
// the former alone.
#include <arpa/inet.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <thread>

#include "support/disk_image.h"
#include "support/engines.h"
#include "support/process.h"
#include "support/process_table.h"

namespace trapline::test {
namespace {

using std::chrono::seconds;
using testing::HasSubstr;
using testing::Not;

sockaddr_in loopback(unsigned port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

// A socket on a port that was free a moment ago; the port.
int listening(unsigned& port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = loopback(0);
  EXPECT_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  EXPECT_EQ(::listen(fd, 8), 0);
  socklen_t length = sizeof address;
  ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length);
  port = ntohs(address.sin_port);
  return fd;
}

void send_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n <= 0) return;
    bytes.remove_prefix(static_cast<std::size_t>(n));
  }
}

// Answers HTTP requests with a body, until it is gone.
class FileServer {
 public:
  FileServer() : listener_{listening(port_)} {
    for (unsigned i = 0; i < 60'000; i++) body_ += fmt::format("{}\n", i * 2654435761u);
    thread_ = std::thread{[this] {
      for (int fd; (fd = ::accept(listener_, nullptr, nullptr)) >= 0; ::close(fd)) {
        char request[4096];
        [[maybe_unused]] const ssize_t n = ::read(fd, request, sizeof request);
        send_all(fd, fmt::format("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", body_.size()) + body_);
      }
    }};
  }
  ~FileServer() {
    ::shutdown(listener_, SHUT_RDWR);
    thread_.join();
    ::close(listener_);
  }
  unsigned port() const { return port_; }
  std::string sum() const { return run({"md5sum"}, body_).output.substr(0, 32); }

 private:
  unsigned port_ = 0;
  int listener_;
  std::string body_;
  std::thread thread_;
};

// What comes back from the forwarded port. Its listener in the guest may be a moment late: then it is tried again.
std::string echo(unsigned port, const std::string& text) {
  std::string back;
  for (unsigned tries = 0; back.empty() && tries < 100; tries++) {
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const sockaddr_in address = loopback(port);
    if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) {
      send_all(fd, text);
      char bytes[4096];
      for (ssize_t n; back.size() < text.size() && (n = ::read(fd, bytes, sizeof bytes)) > 0;)
        back.append(bytes, static_cast<std::size_t>(n));
    }
    ::close(fd);
    if (back.empty()) std::this_thread::sleep_for(std::chrono::milliseconds{100});
  }
  return back;
}

unsigned free_port() {
  unsigned port = 0;
  ::close(listening(port));
  return port;
}

std::vector<std::string> command(const char* engine, const std::string& net, unsigned port, bool xen = false) {
  return {TRAPLINE_EXECUTABLE,
          "run",
          "--engine",
          engine,
          "--kernel",
          fmt::format("{}/kernels/cloud-amd64/vmlinuz", GUEST_CACHE),
          "--initrd",
          fmt::format("{}/kernels/cloud-amd64/initrd", GUEST_CACHE),
          "--memory",
          "128M",
          "--timeout",
          "200",
          "--net",
          net,
          "--para",
          xen ? "xen" : "kvm",
          "--append",
          fmt::format("console={} trapline.run=net trapline.modules={} trapline.port={}", xen ? "hvc0" : "ttyS0",
                      xen ? "xen-netfront" : "virtio_pci,virtio_net", port)};
}

struct Case {
  const char* engine;
  bool xen;  // a domU: netfront over the same device
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.engine << (c.xen ? " xen" : ""); }

class GuestNetwork : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override { SKIP_UNLESS_OFFERED(GetParam().engine); }
};

TEST_P(GuestNetwork, ReachesTheHostAndIsReached) {
  const FileServer server;
  const unsigned port = free_port();
  Process vm{command(GetParam().engine, fmt::format("user,mac=52:54:00:12:34:56,hostfwd=tcp::{}-:8000", port),
                     server.port(), GetParam().xen)};
  ASSERT_TRUE(vm.wait_for("guest-test: listening", seconds{200})) << vm.output();
  EXPECT_THAT(vm.output(), HasSubstr("guest-test: mac 52:54:00:12:34:56 mtu 1500"));
  EXPECT_THAT(vm.output(), HasSubstr("guest-test: fetched " + server.sum()));
  EXPECT_EQ(echo(port, "hello from outside\n"), "hello from outside\n");
  EXPECT_EQ(vm.wait_exit(seconds{60}), 0) << vm.output();
}
std::vector<Case> cases() {
  std::vector<Case> all;
  for (const bool xen : {false, true})
    for (const char* engine : kEngines) all.push_back({engine, xen});
  return all;
}
INSTANTIATE_TEST_SUITE_P(Engines, GuestNetwork, testing::ValuesIn(cases()),
                         [](const auto& c) { return std::string{c.param.engine} + (c.param.xen ? "_xen" : ""); });

TEST(GuestNetworks, RestrictedReachesNobodyAndIsReached) {
  const FileServer server;
  const unsigned port = free_port();
  Process vm{command("auto", fmt::format("user,restrict,hostfwd=tcp::{}-:8000", port), server.port())};
  ASSERT_TRUE(vm.wait_for("guest-test: listening", seconds{200})) << vm.output();
  EXPECT_THAT(vm.output(), Not(HasSubstr(server.sum())));
  EXPECT_EQ(echo(port, "hello"), "hello");
  EXPECT_EQ(vm.wait_exit(seconds{60}), 0) << vm.output();
}

// The passt of Debian 12 does not always tell the guest that the other side has closed, so nothing here waits for that.
TEST(GuestNetworks, PasstForwardsAsUserDoes) {
  if (run({"sh", "-c", "command -v passt"}).code != 0) GTEST_SKIP() << "passt is not installed";
  const unsigned port = free_port(), nobody = free_port();
  Process vm{command("auto", fmt::format("passt,mac=52:54:00:12:34:56,hostfwd=tcp::{}-:8000", port), nobody)};
  ASSERT_TRUE(vm.wait_for("guest-test: listening", seconds{200})) << vm.output();
  EXPECT_THAT(vm.output(), HasSubstr("guest-test: mac 52:54:00:12:34:56 mtu 1500"));
  EXPECT_EQ(echo(port, "hello from outside\n"), "hello from outside\n");
  const auto helpers = children_of(vm.pid());
  vm.signal(SIGKILL);
  vm.wait_exit(seconds{60});
  for (const pid_t pid : helpers) EXPECT_TRUE(gone(pid)) << "a process outlives the VM";
}

TEST(GuestNetworks, PasstThatCannotWorkIsNamed) {
  if (run({"sh", "-c", "command -v passt"}).code != 0) {
    const Finished vm = run(command("auto", "passt", 1));
    EXPECT_EQ(vm.code, 3);
    EXPECT_THAT(vm.output, HasSubstr("--net passt: it is not installed: install the package passt"));
    return;
  }
  const Finished vm = run(command("auto", "passt,hostfwd=tcp:203.0.113.77:2222-:22", 1));
  EXPECT_EQ(vm.code, 3) << vm.output;
  EXPECT_THAT(vm.output, HasSubstr("--net passt: "));
}

TEST(GuestNetworks, APortThatIsTakenIsNamed) {
  const FileServer server;
  const Finished vm = run(command("auto", fmt::format("user,hostfwd=tcp::{}-:22", server.port()), 1));
  EXPECT_EQ(vm.code, 3);
  EXPECT_THAT(vm.output, HasSubstr(fmt::format("--net user: hostfwd: TCP port {} of 127.0.0.1", server.port())));
}

// A TAP interface in a network of its own. Large segments go both ways: the host's TCP makes them as the guest's does.
TEST(GuestNetworks, ATapInterfaceTakesWholeSegments) {
  if (!LinuxDisk::possible()) GTEST_SKIP() << "no busybox, kernel or mke2fs here";
  const auto alone = [](const std::string& script) {
    return run({"unshare", "-n", "sh", "-c", script}, {}, seconds{220});
  };
  const std::string interface =
      "ip tuntap add t0 mode tap && ip addr add 10.0.2.2/24 dev t0 && ip link set t0 up && ip link set lo up";
  if (alone(interface).code != 0) GTEST_SKIP() << "no TAP interface can be made here";
  const LinuxDisk disk{R"sh(#!/bin/busybox sh
/bin/busybox mount -t devtmpfs devtmpfs /dev
/bin/busybox ip link set eth0 up
/bin/busybox ip addr add 10.0.2.15/24 dev eth0
echo "tap-test: came $(/bin/busybox nc 10.0.2.2 7000 </dev/null | /bin/busybox md5sum)"
/bin/busybox seq 1 1000000 | /bin/busybox nc 10.0.2.2 7001
/bin/busybox sleep 1
/bin/busybox poweroff -f
)sh"};
  const std::string server = disk.folder() / "server.py";
  std::ofstream{server} << R"py(
import hashlib, socket, threading
listeners = [socket.create_server(("10.0.2.2", port)) for port in (7000, 7001)]
def send():
    with listeners[0].accept()[0] as c:
        c.sendall(b"".join(b"%d\n" % i for i in range(1, 1000001)))
def receive():
    sum = hashlib.md5()
    with listeners[1].accept()[0] as c:
        while bytes := c.recv(1 << 16):
            sum.update(bytes)
    print("tap-test: went", sum.hexdigest(), flush=True)
for f in (send, receive):
    threading.Thread(target=f).start()
)py";
  const std::string sum = run({"sh", "-c", "seq 1 1000000 | md5sum"}).output.substr(0, 32);
  const Finished vm = alone(fmt::format(
      "{}; python3 {} & exec {} run {} --memory 256M --timeout 200 --net tap,ifname=t0 --append modules=virtio_net",
      interface, server, TRAPLINE_EXECUTABLE, disk.path()));
  EXPECT_EQ(vm.code, 0) << vm.output;
  EXPECT_THAT(vm.output, HasSubstr("tap-test: came " + sum));
  EXPECT_THAT(vm.output, HasSubstr("tap-test: went " + sum));
}

}  // namespace
}  // namespace trapline::test
