// Debian's kernels with virtio devices: a file system on a disk that the host looks at afterwards, and programs that
// devices load over other ones.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <thread>

#include "support/engines.h"
#include "support/process.h"
#include "support/program_disk.h"

namespace trapline::test {
namespace {

using std::chrono::seconds;
using testing::HasSubstr;
using testing::Not;
using u64 = unsigned long long;

struct Case {
  const char* flavour;
  unsigned cpus;
  const char* engine;
  const char* append = "";
  const char* debug = "";
  bool instructions = false;
  bool mmio = false;
  bool xen = false;  // a domU: the same devices behind blkfront
};
void PrintTo(const Case& c, std::ostream* out) {
  *out << c.flavour << ' ' << c.cpus << ' ' << c.engine << ' ' << c.append << c.debug
       << (c.instructions ? " instructions" : "") << (c.mmio ? " mmio" : "") << (c.xen ? " xen" : "");
}

Finished boot(const Case& c, const std::vector<std::string>& options) {
  std::vector<std::string> argv{
      "env",
      fmt::format("TRAPLINE_DEBUG={}", c.debug),
      TRAPLINE_EXECUTABLE,
      "run",
      "--engine",
      c.engine,
      "--kernel",
      fmt::format("{}/kernels/{}/vmlinuz", GUEST_CACHE, c.flavour),
      "--initrd",
      fmt::format("{}/kernels/{}/initrd", GUEST_CACHE, c.flavour),
      "--cpus",
      std::to_string(c.cpus),
      "--memory",
      "128M",
      "--timeout",
      "240",
      "--append",
      c.xen ? "console=hvc0 trapline.run=disk trapline.modules=xen-blkfront,ext4"
            : fmt::format("console=ttyS0 trapline.run=disk trapline.modules={},virtio_blk,virtio-rng,ext4 {}",
                          c.mmio ? "virtio_mmio" : "virtio_pci", c.append)};
  if (c.xen) argv.insert(argv.end(), {"--para", "xen"});
  if (c.mmio) argv.insert(argv.end(), {"--virtio-transport", "mmio"});
  if (c.instructions) argv.insert(argv.end(), {"--clock", "instructions"});
  argv.insert(argv.end(), options.begin(), options.end());
  return run(argv, {}, seconds{240});
}

class GuestDisk : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override { SKIP_UNLESS_OFFERED(GetParam().engine); }
};

TEST_P(GuestDisk, IsReadWrittenAndRunFrom) {
  ProgramDisk image;
  const bool xen = GetParam().xen;
  std::vector<std::string> options{"--disk", image.path + ",discard,serial=first", "--disk", image.code + ",readonly"};
  if (!xen) options.emplace_back("--rng");
  const Finished vm = boot(GetParam(), options);
  EXPECT_EQ(vm.code, 0) << vm.output;
  if (!xen) {
    EXPECT_THAT(vm.output, HasSubstr("guest-test: hwrng 64"));
  }
  EXPECT_THAT(vm.output, HasSubstr(xen ? fmt::format("guest-test: xvda sectors {} ro 0 serial [] queues 1", 24 * 2048)
                                       : fmt::format("guest-test: vda sectors {} ro 0 serial [first] queues {}",
                                                     24 * 2048, GetParam().cpus)));
  EXPECT_THAT(vm.output, HasSubstr("vdb sectors 512 ro 1"));
  EXPECT_THAT(vm.output, HasSubstr("guest-test: sum " + image.sum));
  EXPECT_THAT(vm.output, HasSubstr("guest-test: wrong programs 0"));
  EXPECT_THAT(vm.output, HasSubstr("guest-test: functions from the disk, 0 wrong"));
  EXPECT_THAT(vm.output, HasSubstr("guest-test: new "));
  EXPECT_THAT(vm.output, Not(HasSubstr("guest-test: fstrim")));
  EXPECT_THAT(vm.output, Not(HasSubstr("kernel complaint")));
  // What the guest wrote, as the host finds it.
  const Finished check = run({"/sbin/e2fsck", "-fn", image.path});
  EXPECT_EQ(check.code, 0) << check.output;
  run({"/sbin/debugfs", "-R", fmt::format("dump /new {}/new", image.folder), image.path});
  EXPECT_THAT(vm.output, HasSubstr("guest-test: new " + run({"md5sum", image.folder + "/new"}).output.substr(0, 32)));
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const char* engine : kEngines)
    for (const unsigned cpus : {1u, 2u}) all.push_back({"cloud-amd64", cpus, engine});
  all.push_back({"cloud-amd64", 1, "translate", "pci=nomsi"});
  all.push_back({"cloud-amd64", 2, "translate", "", "", true});
  all.push_back({"amd64", 1, "translate"});
  all.push_back({.flavour = "cloud-amd64", .cpus = 2, .engine = "translate", .mmio = true});
  for (const char* engine : kEngines)
    for (const unsigned cpus : {1u, 4u})
      all.push_back({.flavour = "cloud-amd64", .cpus = cpus, .engine = engine, .xen = true});
  all.push_back({.flavour = "amd64", .cpus = 1, .engine = "translate", .xen = true});
  all.push_back({.flavour = "cloud-amd64", .cpus = 2, .engine = "translate", .instructions = true, .xen = true});
  return all;
}
std::string name_of(const testing::TestParamInfo<Case>& info) {
  std::string name =
      fmt::format("{}_{}cpu_{}{}{}{}{}{}", info.param.flavour, info.param.cpus, info.param.engine, info.param.debug,
                  *info.param.append ? "_intx" : "", info.param.instructions ? "_instructions" : "",
                  info.param.mmio ? "_mmio" : "", info.param.xen ? "_xen" : "");
  for (char& c : name)
    if (c == '-') c = '_';
  return name;
}
INSTANTIATE_TEST_SUITE_P(Kernels, GuestDisk, testing::ValuesIn(cases()), name_of);

TEST(GuestDisks, ReadonlyAndSnapshotLeaveTheImage) {
  ProgramDisk image;
  const std::string before = image.digest();
  const Case c{"cloud-amd64", 1, "auto"};
  const Finished reads = boot(c, {"--disk", image.path + ",readonly"});
  EXPECT_THAT(reads.output, HasSubstr("ro 1"));
  EXPECT_THAT(reads.output, HasSubstr("guest-test: sum " + image.sum));
  EXPECT_EQ(image.digest(), before);
  const Finished writes = boot(c, {"--disk", image.path + ",snapshot"});
  EXPECT_THAT(writes.output, HasSubstr("guest-test: new "));
  EXPECT_THAT(writes.output, Not(HasSubstr("kernel complaint")));
  EXPECT_EQ(image.digest(), before);
}

// Memory that the guest has used and freed goes back to the host by itself.
TEST(GuestBalloon, FreePagesGoBackToTheHost) {
  const std::string kernel = fmt::format("{}/kernels/cloud-amd64", GUEST_CACHE);
  Process vm{{TRAPLINE_EXECUTABLE, "run", "--kernel", kernel + "/vmlinuz", "--initrd", kernel + "/initrd", "--memory",
              "512M", "--timeout", "200", "--balloon", "64M", "--append",
              "console=ttyS0 trapline.run=memory trapline.modules=virtio_pci,virtio_balloon"}};
  const auto blocks = [&] {  // of the file, whoever maps it
    for (const auto& entry : std::filesystem::directory_iterator{fmt::format("/proc/{}/map_files", vm.pid())}) {
      struct stat st {};
      std::error_code ignored;
      const std::string target = std::filesystem::read_symlink(entry.path(), ignored).string();
      if (target.find("guest-ram (deleted)") != std::string::npos && ::stat(entry.path().c_str(), &st) == 0)
        return static_cast<u64>(st.st_blocks) / 2;
    }
    return u64{0};
  };
  ASSERT_TRUE(vm.wait_for("guest-test: used", seconds{150})) << vm.output();
  const u64 used = blocks();
  if (used == 0) GTEST_SKIP() << "this user may not look into /proc/PID/map_files";
  EXPECT_GT(used, 250'000u);
  vm.send("\n");
  ASSERT_TRUE(vm.wait_for("guest-test: freed", seconds{60})) << vm.output();
  u64 left = used;
  for (int i = 0; i < 300 && left > used - 180'000; i++) {  // Linux reports some seconds later
    std::this_thread::sleep_for(std::chrono::milliseconds{100});
    left = blocks();
  }
  EXPECT_LT(left, used - 180'000) << "KiB";
  vm.send("\n");
  EXPECT_EQ(vm.wait_exit(seconds{60}), 0) << vm.output();
  EXPECT_THAT(vm.output(), HasSubstr("guest-test: again, sum right"));
}

// What the guest has of a qcow2 image, and the host afterwards.
TEST(GuestDisks, Qcow2IsReadWrittenAndRunFrom) {
  if (run({"sh", "-c", "command -v qemu-nbd"}).code != 0) GTEST_SKIP() << "qemu-nbd is not installed (qemu-utils)";
  ProgramDisk image;
  const std::string base = image.folder + "/base.qcow2", top = image.folder + "/top.qcow2";
  ASSERT_EQ(run({"qemu-img", "convert", "-f", "raw", "-O", "qcow2", image.path, base}).code, 0);
  ASSERT_EQ(run({"qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", top}).code, 0);
  const auto digest = [](const std::string& path) { return run({"md5sum", path}).output.substr(0, 32); };
  const std::string before = digest(base);
  for (const bool instructions : {false, true}) {
    const Case c{.flavour = "cloud-amd64", .cpus = 2, .engine = "auto", .instructions = instructions};
    const Finished vm = boot(c, {"--disk", top + (instructions ? ",snapshot" : ",discard,serial=first"), "--disk",
                                 image.code + ",readonly"});
    EXPECT_EQ(vm.code, 0) << vm.output;
    if (!instructions) {
      EXPECT_THAT(vm.output, HasSubstr("serial [first]"));
      EXPECT_THAT(vm.output, HasSubstr("guest-test: sum " + image.sum));
      EXPECT_THAT(vm.output, Not(HasSubstr("guest-test: fstrim")));
      run({"qemu-img", "convert", "-f", "qcow2", "-O", "raw", top, image.path});
      EXPECT_EQ(run({"/sbin/e2fsck", "-fn", image.path}).code, 0);
      run({"/sbin/debugfs", "-R", fmt::format("dump /new {}/new", image.folder), image.path});
      EXPECT_THAT(vm.output, HasSubstr("guest-test: new " + digest(image.folder + "/new")));
    }
    EXPECT_THAT(vm.output, HasSubstr("guest-test: wrong programs 0"));
    EXPECT_THAT(vm.output, HasSubstr("guest-test: new "));
    EXPECT_THAT(vm.output, Not(HasSubstr("kernel complaint")));
  }
  EXPECT_EQ(digest(base), before);
}

}  // namespace
}  // namespace trapline::test
