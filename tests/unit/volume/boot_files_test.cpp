#include "volume/boot_files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <optional>

#include "memory_disk.h"

namespace trapline::volume {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

// A tree that becomes the first partition of a disk.
struct BootFilesOf : testing::Test {
  static constexpr u64 kFirst = MiB, kDisk = 16 * MiB;
  fs::path folder, tree;
  BootFilesOf() {
    char name[] = "/tmp/trapline-volume-XXXXXX";
    folder = ::mkdtemp(name);
    tree = folder / "tree";
    fs::create_directories(tree / "etc");
    fs::create_directories(tree / "usr");
    fs::create_directories(tree / "boot");
  }
  ~BootFilesOf() override { fs::remove_all(folder); }
  void SetUp() override {
    if (!fs::exists("/sbin/mke2fs")) GTEST_SKIP() << "no mke2fs here";
    ASSERT_TRUE(load_ext_library()) << load_ext_library().error();
  }

  void file(const char* path, const std::string& text) const { std::ofstream{tree / path} << text; }

  test::MemoryDisk disk() const {
    const std::string image = folder / "image";
    fs::remove(image);
    EXPECT_EQ(::system(fmt::format("/sbin/mke2fs -q -t ext4 -d {} {} 8M >/dev/null", tree.string(), image).c_str()), 0);
    test::MemoryDisk made{kDisk};
    made.put<u32>(440, 0x12345678);
    made.mbr(0, 0, 0x83, kFirst / 512, 8 * MiB / 512);
    std::ifstream in{image, std::ios::binary};
    const std::string bytes{std::istreambuf_iterator<char>{in}, {}};
    made.text(kFirst, bytes);
    return made;
  }

  std::string kernel, initrd;
  Result<BootFiles, std::string> read(const Source& from, const Wanted& wanted = {}) {
    kernel.clear(), initrd.clear();
    const auto into = [](std::string& to) {
      return [&to](std::span<const u8> b) { return to.append(b.begin(), b.end()), true; };
    };
    return read_boot_files(from, wanted, into(kernel), into(initrd));
  }
};

TEST_F(BootFilesOf, DebianAreTheNewestOnes) {
  file("boot/vmlinuz-6.1.0-9-amd64", "old");
  file("boot/vmlinuz-6.1.0-10-amd64", std::string(700'000, 'k') + "new");
  file("boot/vmlinuz-0-rescue-9", "rescue");
  file("boot/initrd.img-6.1.0-9-amd64", "old");
  file("boot/initrd.img-6.1.0-10-amd64", "initrd");
  fs::create_symlink("boot/vmlinuz-6.1.0-9-amd64", tree / "vmlinuz");
  const auto found = read(disk());
  ASSERT_TRUE(found) << found.error();
  EXPECT_EQ(found->kernel, "/boot/vmlinuz-6.1.0-10-amd64");
  EXPECT_EQ(kernel, std::string(700'000, 'k') + "new");
  EXPECT_EQ(initrd, "initrd");
  EXPECT_EQ(found->root, "PARTUUID=12345678-01");
  ASSERT_TRUE(read(disk(), {"/vmlinuz", "/boot/initrd.img-6.1.0-9-amd64"}));
  EXPECT_EQ(kernel, "old") << "links are followed";
  EXPECT_EQ(initrd, "old");
  ASSERT_TRUE(read(disk(), {"/boot/vmlinuz-6.1.0-9-amd64", ""}));
  EXPECT_EQ(initrd, "old") << "the one of the kernel that was named";
  ASSERT_TRUE(read(disk(), {"", "", false, true}));
  EXPECT_EQ(initrd, "initrd") << "without the kernel";
  EXPECT_THAT(read(disk(), {"/no", ""}).error(), HasSubstr("no /no in it"));
  EXPECT_THAT(read(disk(), {"", "/no"}).error(), HasSubstr("no /no in it"));
  EXPECT_THAT(read(disk(), {"/boot", ""}).error(), HasSubstr("no regular file"));
}

TEST_F(BootFilesOf, LinksAloneWillDo) {
  file("boot/image", "linked");
  fs::create_symlink("/boot/image", tree / "vmlinuz");
  const auto found = read(disk());
  ASSERT_TRUE(found) << found.error();
  EXPECT_EQ(kernel, "linked");
  EXPECT_EQ(found->initrd, "");
}

TEST_F(BootFilesOf, NothingIsSaid) {
  EXPECT_THAT(read(disk()).error(), HasSubstr("no kernel in its /boot"));
  EXPECT_THAT(read(test::MemoryDisk{kDisk}).error(), HasSubstr("no ext4 file system"));
  fs::create_symlink("/b", tree / "a");
  fs::create_symlink("/a", tree / "b");
  EXPECT_THAT(read(disk(), {"/a", ""}).error(), HasSubstr("no /a in it")) << "a ring of links";
  file("boot/vmlinuz-1", "");
  EXPECT_THAT(read(disk()).error(), HasSubstr("it is empty"));
}

// Whatever is overwritten, the end is a file or a line.
TEST_F(BootFilesOf, DamagedOnesEnd) {
  file("boot/vmlinuz-1", std::string(100'000, 'k'));
  file("boot/initrd.img-1", "initrd");
  const test::MemoryDisk whole = disk();
  u64 seed = 1;
  for (int round = 0; round < 30; round++) {
    test::MemoryDisk bad = whole;
    for (int i = 0; i < 40; i++) {
      seed = seed * 6364136223846793005 + 1442695040888963407;
      bad.put<u8>(kFirst + (seed >> 20) % (round % 2 ? 8 * MiB : 8192), static_cast<u8>(seed >> 12));
    }
    const auto found = read(bad);
    if (!found) {
      EXPECT_NE(found.error(), "");
    }
  }
}

}  // namespace
}  // namespace trapline::volume
