// Debian's kernels with devices whose back ends are other programs, by vhost-user: QEMU's storage daemon, virtiofsd, and
// one that answers pings.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <array>

#include "support/disk_image.h"
#include "support/engines.h"
#include "support/program_disk.h"
#include "support/vhost_back_end.h"

namespace trapline::test {
namespace {

using std::chrono::seconds;
using testing::HasSubstr;
using testing::Not;

bool installed(const std::string& program) { return run({"sh", "-c", "command -v " + program}).code == 0; }

// A program that listens on a socket.
std::unique_ptr<Process> started(const std::vector<std::string>& argv, const std::string& socket) {
  auto process = std::make_unique<Process>(argv);
  for (unsigned tries = 0; tries < 500 && !std::filesystem::exists(socket); tries++)
    std::this_thread::sleep_for(std::chrono::milliseconds{20});
  EXPECT_TRUE(std::filesystem::exists(socket)) << argv[0];
  return process;
}

std::unique_ptr<Process> storage_daemon(const std::string& image, const std::string& socket, const std::string& more) {
  return started({"qemu-storage-daemon", "--blockdev", "file,node-name=file,filename=" + image, "--export",
                  "vhost-user-blk,id=disk,node-name=file,addr.type=unix,addr.path=" + socket + more},
                 socket);
}

class VhostDisk : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (!installed("qemu-storage-daemon")) GTEST_SKIP() << "no qemu-storage-daemon here (qemu-system-common)";
    SKIP_UNLESS_OFFERED(GetParam());
  }
};

// The disk of programs is the one of virtio_test.cpp: what another process writes over code is seen by the engines.
TEST_P(VhostDisk, IsReadWrittenAndRunFrom) {
  const ProgramDisk image;
  const std::string first = image.folder + "/first", second = image.folder + "/second";
  const auto one = storage_daemon(image.path, first, ",writable=on,num-queues=2");
  const auto two = storage_daemon(image.code, second, "");
  const Finished vm = run({TRAPLINE_EXECUTABLE,
                           "run",
                           "--engine",
                           GetParam(),
                           "--kernel",
                           GUEST_CACHE "/kernels/cloud-amd64/vmlinuz",
                           "--initrd",
                           GUEST_CACHE "/kernels/cloud-amd64/initrd",
                           "--cpus",
                           "2",
                           "--memory",
                           "128M",
                           "--timeout",
                           "240",
                           "--disk",
                           "vhost-user=" + first,
                           "--disk",
                           "vhost-user=" + second,
                           "--append",
                           "console=ttyS0 trapline.run=disk trapline.modules=virtio_pci,virtio_blk,ext4"},
                          {}, seconds{250});
  EXPECT_EQ(vm.code, 0) << vm.output;
  EXPECT_THAT(vm.output, HasSubstr(fmt::format("vda sectors {} ro 0 serial [vhost_user_blk] queues 2", 24 * 2048)));
  EXPECT_THAT(vm.output, HasSubstr("vdb sectors 512 ro 1"));
  EXPECT_THAT(vm.output, HasSubstr("guest-test: sum " + image.sum));
  EXPECT_THAT(vm.output, HasSubstr("guest-test: wrong programs 0"));
  EXPECT_THAT(vm.output, HasSubstr("guest-test: functions from the disk, 0 wrong"));
  EXPECT_THAT(vm.output, Not(HasSubstr("kernel complaint")));
  const Finished check = run({"/sbin/e2fsck", "-fn", image.path});
  EXPECT_EQ(check.code, 0) << check.output;
  run({"/sbin/debugfs", "-R", fmt::format("dump /new {}/new", image.folder), image.path});
  EXPECT_THAT(vm.output, HasSubstr("guest-test: new " + run({"md5sum", image.folder + "/new"}).output.substr(0, 32)));
}

INSTANTIATE_TEST_SUITE_P(Engines, VhostDisk, testing::Values("translate", "patch"),
                         [](const testing::TestParamInfo<const char*>& engine) { return std::string{engine.param}; });

struct VhostGuest : testing::Test {
  void SetUp() override {
    if (!LinuxDisk::possible()) GTEST_SKIP() << "no busybox, kernel or mke2fs here";
  }
  static std::vector<std::string> command(const LinuxDisk& disk, const std::string& option, const std::string& value,
                                          const std::string& module) {
    return {TRAPLINE_EXECUTABLE, "run", disk.path(), "--memory", "256M", "--timeout", "200", option, value, "--append",
            "modules=" + module};
  }
};

// Without root or namespaces virtiofsd has no sandbox to be in.
TEST_F(VhostGuest, AFolderOfVirtiofsd) {
  constexpr const char* kDaemon = "/usr/lib/qemu/virtiofsd";
  if (!std::filesystem::exists(kDaemon)) GTEST_SKIP() << "no virtiofsd here (qemu-system-common)";
  if (::geteuid() != 0) GTEST_SKIP() << "virtiofsd needs root";
  const LinuxDisk disk{R"sh(#!/bin/busybox sh
/bin/busybox mount -t virtiofs host /mnt && echo "share-test: $(/bin/busybox md5sum </mnt/data)"
echo of-the-guest >/mnt/new
/bin/busybox mkdir -p /mnt/a/b/c
/bin/busybox cp /mnt/data /mnt/a/b/c/copy
/bin/busybox umount /mnt && /bin/busybox mount -t virtiofs host /mnt
echo "share-test: again $(/bin/busybox md5sum </mnt/a/b/c/copy)"
/bin/busybox umount /mnt
/bin/busybox poweroff -f
)sh"};
  const std::filesystem::path folder = disk.folder() / "shared";
  const std::string socket = disk.folder() / "socket";
  std::filesystem::create_directory(folder);
  run({"sh", "-c", "head -c 3000000 /dev/urandom >" + (folder / "data").string()});
  const std::string sum = run({"md5sum", folder / "data"}).output.substr(0, 32);
  const auto daemon = started(
      {kDaemon, "--socket-path=" + socket, "-o", "source=" + folder.string(), "-o", "sandbox=chroot", "-f"}, socket);
  const Finished vm = run(command(disk, "--share", "vhost-user=" + socket + ",tag=host", "virtiofs"), {}, seconds{220});
  EXPECT_EQ(vm.code, 0) << vm.output << daemon->output();
  EXPECT_THAT(vm.output, HasSubstr("share-test: " + sum));
  EXPECT_THAT(vm.output, HasSubstr("share-test: again " + sum));
  EXPECT_EQ(run({"cat", folder / "new"}).output, "of-the-guest\n");
  EXPECT_EQ(run({"md5sum", folder / "a/b/c/copy"}).output.substr(0, 32), sum);
}

// A disk that loses its back end: errors in the guest, one line for the user, and the VM goes on.
TEST_F(VhostGuest, ADiskWhoseDaemonIsKilled) {
  if (!installed("qemu-storage-daemon")) GTEST_SKIP() << "no qemu-storage-daemon here (qemu-system-common)";
  const LinuxDisk disk{R"sh(#!/bin/busybox sh
/bin/busybox mount -t devtmpfs devtmpfs /dev
/bin/busybox dd if=/dev/vdb of=/dev/null bs=4k count=8 && echo "loss-test: reads"
while /bin/busybox dd if=/dev/vdb of=/dev/null bs=64k iflag=direct; do true; done
echo "loss-test: over"
/bin/busybox poweroff -f
)sh"};
  const std::string socket = disk.folder() / "socket", image = disk.folder() / "other.img";
  run({"truncate", "-s", "64M", image});
  const auto daemon = storage_daemon(image, socket, "");
  Process vm{command(disk, "--disk", "vhost-user=" + socket, "virtio_blk")};
  ASSERT_TRUE(vm.wait_for("loss-test: reads", seconds{120})) << vm.output();
  daemon->signal(SIGKILL);
  EXPECT_TRUE(vm.wait_for("loss-test: over", seconds{120})) << vm.output();
  EXPECT_EQ(vm.wait_exit(seconds{60}), 0);
  EXPECT_THAT(vm.output(), HasSubstr("--disk vhost-user=" + socket +
                                     ": it has ended: the guest gets I/O errors until it is started again"));
  EXPECT_THAT(vm.output(), HasSubstr("I/O error"));
}

TEST_F(VhostGuest, ADiskWhoseDaemonIsStartedAgain) {
  if (!installed("qemu-storage-daemon")) GTEST_SKIP() << "no qemu-storage-daemon here (qemu-system-common)";
  const LinuxDisk disk{R"sh(#!/bin/busybox sh
/bin/busybox mount -t devtmpfs devtmpfs /dev
read() { /bin/busybox dd if=/dev/vdb of=/dev/null bs=64k count=1 iflag=direct 2>/dev/null; }
read && echo "again-test: reads"
while read; do true; done
echo "again-test: lost"
until read; do /bin/busybox sleep 1; done
echo "again-test: reads again"
/bin/busybox poweroff -f
)sh"};
  const std::string socket = disk.folder() / "socket", image = disk.folder() / "other.img";
  run({"truncate", "-s", "64M", image});
  auto daemon = storage_daemon(image, socket, "");
  Process vm{command(disk, "--disk", "vhost-user=" + socket, "virtio_blk")};
  ASSERT_TRUE(vm.wait_for("again-test: reads", seconds{120})) << vm.output();
  daemon->signal(SIGKILL);
  daemon->wait_exit(seconds{30});
  ASSERT_TRUE(vm.wait_for("again-test: lost", seconds{120})) << vm.output();
  std::filesystem::remove(socket);
  daemon = storage_daemon(image, socket, "");
  EXPECT_TRUE(vm.wait_for("again-test: reads again", seconds{120})) << vm.output();
  EXPECT_EQ(vm.wait_exit(seconds{60}), 0);
  EXPECT_THAT(vm.output(), HasSubstr("--disk vhost-user=" + socket + ": it is back"));
}

// 10.0.2.2: answers ARP and pings.
struct Host {
  static constexpr std::size_t kHeader = 12;  // of virtio-net
  static constexpr std::array<u8, 6> kMac{0x52, 0x55, 10, 0, 2, 2};
  static void swap(std::vector<u8>& f, std::size_t a, std::size_t b, std::size_t n) {
    std::swap_ranges(f.begin() + static_cast<std::ptrdiff_t>(a), f.begin() + static_cast<std::ptrdiff_t>(a + n),
                     f.begin() + static_cast<std::ptrdiff_t>(b));
  }
  // The answer to a frame behind its header, or nothing.
  static std::vector<u8> answer(std::vector<u8> f) {
    f[10] = 1, f[11] = 0;  // one buffer
    u8* frame = f.data() + kHeader;
    const std::size_t bytes = f.size() - kHeader;
    std::copy_n(frame + 6, 6, frame);
    std::copy(kMac.begin(), kMac.end(), frame + 6);
    if (bytes >= 42 && frame[12] == 8 && frame[13] == 6 && frame[21] == 1) {  // who has
      frame[21] = 2;
      swap(f, kHeader + 22, kHeader + 32, 10);
      std::copy(kMac.begin(), kMac.end(), frame + 22);
      return f;
    }
    if (bytes >= 42 && frame[12] == 8 && frame[13] == 0 && frame[23] == 1 && frame[34] == 8) {  // echo request
      swap(f, kHeader + 26, kHeader + 30, 4);
      frame[34] = 0;
      const u32 sum = (u32{frame[36]} << 8 | frame[37]) + 0x800;  // the type was in the checksum
      const u32 folded = (sum & 0xffff) + (sum >> 16);
      frame[36] = static_cast<u8>(folded >> 8), frame[37] = static_cast<u8>(folded);
      return f;
    }
    return {};
  }
};

TEST_F(VhostGuest, ANetworkCard) {
  const LinuxDisk disk{R"sh(#!/bin/busybox sh
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox ip link set eth0 up
/bin/busybox ip addr add 10.0.2.15/24 dev eth0
echo "net-test: mac $(/bin/busybox cat /sys/class/net/eth0/address) mtu $(/bin/busybox cat /sys/class/net/eth0/mtu)"
/bin/busybox ping -c 5 -i 0.2 -s 1000 -W 5 10.0.2.2 | /bin/busybox sed 's/^/net-test: /'
/bin/busybox poweroff -f
)sh"};
  VhostBackEnd back_end;
  back_end.features |= 1 << 15;  // mergeable buffers
  back_end.network = true;
  back_end.handle = [&](unsigned, const VhostBackEnd::Chain& chain) {
    const auto answer = Host::answer(chain.read());
    if (!answer.empty()) back_end.give(0, answer);
    return std::optional<u32>{0};
  };
  const std::string socket = disk.folder() / "socket";
  back_end.serve(socket);
  const Finished vm =
      run(command(disk, "--net", "vhost-user,mac=52:54:00:12:34:56,mtu=1400,path=" + socket, "virtio_net"), {},
          seconds{220});
  EXPECT_EQ(vm.code, 0) << vm.output;
  EXPECT_THAT(vm.output, HasSubstr("net-test: mac 52:54:00:12:34:56 mtu 1400"));
  EXPECT_THAT(vm.output, HasSubstr("5 packets transmitted, 5 packets received"));
}

}  // namespace
}  // namespace trapline::test
