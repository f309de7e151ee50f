// A small Linux on a disk: busybox, one of Debian's kernels and an initrd that enters the disk, in the first partition of
// an MBR, as people have them.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <array>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>

#include "support/process.h"

namespace trapline::test {

class LinuxDisk {
 public:
  static constexpr unsigned kFirst = 1 << 20;  // byte of the partition

  // `init`: what the system does, a script for busybox; it is to end with a power-off.
  explicit LinuxDisk(const std::string& init) {
    namespace fs = std::filesystem;
    char name[] = "/tmp/trapline-disk-XXXXXX";
    folder_ = ::mkdtemp(name);
    const fs::path tree = folder_ / "tree", over = folder_ / "over";
    for (const char* d : {"boot", "bin", "sbin", "etc", "usr", "proc", "sys", "dev", "mnt"})
      fs::create_directories(tree / d);
    fs::create_directories(over);
    fs::copy_file(GUEST_CACHE "/busybox-amd64/bin/busybox", tree / "bin/busybox");
    fs::copy_file(GUEST_CACHE "/kernels/cloud-amd64/vmlinuz", tree / "boot/vmlinuz-6.1-test");
    script(tree / "sbin/init", init);
    script(over / "init", kEnterTheRoot);
    // Linux unpacks one archive over the other.
    sh(fmt::format(
        "cd {0}/over && {{ cat {1}/kernels/cloud-amd64/initrd; echo init | cpio --quiet -o -H newc | gzip -n -1; }} "
        ">{0}/tree/boot/initrd.img-6.1-test",
        folder_.string(), GUEST_CACHE));
    sh(fmt::format("PATH=$PATH:/sbin; mke2fs -q -F -t ext4 -E offset={} -d {} {} 47M", kFirst, tree.string(), path()));
    write_mbr();
  }
  ~LinuxDisk() { std::filesystem::remove_all(folder_); }
  LinuxDisk(const LinuxDisk&) = delete;

  static bool possible() {
    return std::filesystem::exists(GUEST_CACHE "/busybox-amd64/bin/busybox") &&
           std::filesystem::exists(GUEST_CACHE "/kernels/cloud-amd64/initrd") &&
           std::filesystem::exists("/sbin/mke2fs");
  }
  std::string path() const { return folder_ / "disk.img"; }
  const std::filesystem::path& folder() const { return folder_; }
  Finished check() const { return run({"/sbin/e2fsck", "-fn", fmt::format("{}?offset={}", path(), kFirst)}); }
  std::string cat(const std::string& file) const {
    return run({"/sbin/debugfs", "-R", "cat " + file, fmt::format("{}?offset={}", path(), kFirst)}, {},
               std::chrono::seconds{30}, {.merge_stderr = false, .environment = {}})
        .output;
  }

 private:
  static constexpr const char* kEnterTheRoot = R"sh(#!/bin/busybox sh
/bin/busybox mkdir -p /bin /sbin /mnt
/bin/busybox --install -s
export PATH=/bin:/sbin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev 2>/dev/null
if grep -q xen /sys/hypervisor/type 2>/dev/null; then
  disk=xvda
  modprobe xen-blkfront
  for n in 1 2 3 4 5 6 7 8 9 10; do [ -e /dev/xvda ] && break; sleep 0.3; done
else
  disk=vda
  for module in virtio_pci virtio_blk; do modprobe $module; done
fi
modprobe ext4
for word in $(cat /proc/cmdline); do
  case $word in
    root=PARTUUID=*) number=${word##*-} ;;
    modules=*) modprobe "${word#*=}" ;;
  esac
done
mount -t ext4 -o ro "/dev/$disk$((0x$number))" /mnt
exec switch_root /mnt /sbin/init
)sh";

  static void sh(const std::string& command) {
    const Finished f = run({"sh", "-c", command});
    EXPECT_EQ(f.code, 0) << command << f.output;
  }
  static void script(const std::filesystem::path& path, const std::string& text) {
    std::ofstream{path} << text;
    ::chmod(path.c_str(), 0755);
  }
  void write_mbr() const {
    std::array<char, 512> sector{};
    const auto put = [&](std::size_t at, unsigned value) { std::memcpy(&sector[at], &value, sizeof value); };
    put(440, 0x1234abcd);
    sector[446 + 4] = '\x83';
    put(446 + 8, kFirst / 512);
    put(446 + 12, 47 * 2048);
    sector[510] = '\x55', sector[511] = '\xaa';
    std::fstream image{path(), std::ios::in | std::ios::out | std::ios::binary};
    image.write(sector.data(), sector.size());
  }

  std::filesystem::path folder_;
};

}  // namespace trapline::test
