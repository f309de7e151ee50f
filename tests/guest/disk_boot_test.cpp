// Disk images that people have: kernel and initrd are in them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/disk_image.h"

namespace trapline::test {
namespace {

using std::chrono::seconds;
using testing::HasSubstr;

constexpr const char* kInit = R"sh(#!/bin/busybox sh
export PATH=/bin:/sbin
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -o remount,rw /
echo "disk-test: $(/bin/busybox cat /proc/cmdline)"
echo written >/etc/new
/bin/busybox mount -o remount,ro / && echo "disk-test: end"
/bin/busybox poweroff -f
)sh";

struct DiskBoot : testing::Test {
  void SetUp() override {
    if (!LinuxDisk::possible()) GTEST_SKIP() << "no busybox, kernel or mke2fs here";
  }
  static Finished trapline(std::vector<std::string> words) {
    words.insert(words.begin(), {TRAPLINE_EXECUTABLE, "run", "--memory", "256M", "--timeout", "200"});
    return run(words, {}, seconds{220});
  }
};

TEST_F(DiskBoot, AnImageBootsByItself) {
  const LinuxDisk disk{kInit};
  const Finished vm = trapline({disk.path(), "--append", "mine=1"});
  EXPECT_EQ(vm.code, 0) << vm.output;
  EXPECT_THAT(vm.output, HasSubstr("disk-test: root=PARTUUID=1234abcd-01 ro console=ttyS0 mine=1"));
  EXPECT_THAT(vm.output, HasSubstr("disk-test: end"));
  EXPECT_EQ(disk.cat("/etc/new"), "written\n");
  EXPECT_EQ(disk.check().code, 0) << disk.check().output;
}

// As distributions publish them. A name alone says nothing, and first bytes alone neither.
TEST_F(DiskBoot, AQcow2ImageBootsByItself) {
  if (run({"sh", "-c", "command -v qemu-img && command -v qemu-nbd"}).code != 0) GTEST_SKIP() << "no qemu-utils here";
  const LinuxDisk disk{kInit};
  const std::string qcow2 = disk.folder() / "disk.qcow2", unnamed = disk.folder() / "other.img";
  ASSERT_EQ(run({"qemu-img", "convert", "-c", "-O", "qcow2", disk.path(), qcow2}).code, 0);
  const Finished vm = trapline({qcow2});
  EXPECT_EQ(vm.code, 0) << vm.output;
  EXPECT_THAT(vm.output, HasSubstr("disk-test: root=PARTUUID=1234abcd-01 ro console=ttyS0"));
  EXPECT_THAT(vm.output, HasSubstr("disk-test: end"));
  ASSERT_EQ(run({"qemu-img", "convert", "-O", "raw", qcow2, disk.path()}).code, 0);
  EXPECT_EQ(disk.cat("/etc/new"), "written\n");
  std::filesystem::rename(qcow2, unnamed);
  const Finished unclear = trapline({unnamed});
  EXPECT_EQ(unclear.code, 3);
  EXPECT_THAT(unclear.output, HasSubstr("format=qcow2"));
  const Finished none = trapline({"--kernel", "image:/no", "--disk", unnamed + ",format=qcow2"});
  EXPECT_EQ(none.code, 3);
  EXPECT_THAT(none.output, HasSubstr("other.img: no /no in it"));
}

TEST_F(DiskBoot, AnImageBootsAsAXenGuest) {
  const LinuxDisk disk{kInit};
  const Finished vm = trapline({disk.path(), "--para", "xen"});
  EXPECT_EQ(vm.code, 0) << vm.output;
  EXPECT_THAT(vm.output, HasSubstr("disk-test: root=PARTUUID=1234abcd-01 ro console=hvc0"));
  EXPECT_THAT(vm.output, HasSubstr("disk-test: end"));
  EXPECT_EQ(disk.cat("/etc/new"), "written\n");
  EXPECT_EQ(disk.check().code, 0) << disk.check().output;
}

TEST_F(DiskBoot, FilesOfTheFirstDiskAreNamed) {
  const LinuxDisk disk{kInit};
  const Finished vm = trapline({"--kernel", "image:/boot/vmlinuz-6.1-test", "--initrd", "image:", "--disk",
                                disk.path() + ",snapshot", "--append", "root=PARTUUID=x-01 console=ttyS0"});
  EXPECT_EQ(vm.code, 0) << vm.output;
  EXPECT_THAT(vm.output, HasSubstr("disk-test: root=PARTUUID=x-01 console=ttyS0"));
  EXPECT_THAT(disk.cat("/etc/new"), testing::Not(HasSubstr("written\n"))) << "a snapshot";
  const Finished none = trapline({"--kernel", "image:/no", "--disk", disk.path()});
  EXPECT_EQ(none.code, 3);
  EXPECT_THAT(none.output, HasSubstr("disk.img: no /no in it"));
  EXPECT_THAT(trapline({"--kernel", "image:/no"}).output, HasSubstr("give --disk FILE"));
}

TEST_F(DiskBoot, UserDataIsOnADiskOfItsOwn) {
  if (run({"sh", "-c", "command -v mformat || command -v xorriso"}).code != 0) GTEST_SKIP() << "no mtools here";
  const LinuxDisk disk{R"sh(#!/bin/busybox sh
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
echo "seed-test: ro $(/bin/busybox cat /sys/block/vdb/ro) serial $(/bin/busybox cat /sys/block/vdb/serial)"
for word in CIDATA words-of-mine local-hostname:.web; do
  echo "seed-test: $word $(/bin/busybox grep -a -c "$word" /dev/vdb)"
done
/bin/busybox poweroff -f
)sh"};
  const std::string user_data = disk.folder() / "user-data.yaml";
  std::ofstream{user_data} << "#cloud-config\n# words-of-mine\n";
  const Finished vm = trapline({disk.path(), "--name", "web", "--cloud-init", user_data});
  EXPECT_EQ(vm.code, 0);
  EXPECT_THAT(vm.output, HasSubstr("seed-test: ro 1 serial cidata"));
  for (const char* word : {"CIDATA", "words-of-mine", "local-hostname:.web"})
    EXPECT_THAT(vm.output, testing::ContainsRegex(fmt::format("seed-test: {} [1-9]", word)));
  const Finished none = trapline({disk.path(), "--cloud-init", "/nonexistent"});
  EXPECT_EQ(none.code, 3);
  EXPECT_THAT(none.output, HasSubstr("--cloud-init /nonexistent"));
}

}  // namespace
}  // namespace trapline::test
