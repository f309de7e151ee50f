#include "core/images.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>

namespace trapline::core {
namespace {

constexpr u64 kRam = 8 * MiB, kImage = 1 * MiB + 123;

// A file of kImage bytes with a hole in its middle, and RAM.
class ImagesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    launch.kernel_fd = ::memfd_create("image", MFD_CLOEXEC);
    ASSERT_EQ(::ftruncate(launch.kernel_fd, kImage), 0);
    for (u64 i = 0; i < kImage; i++)
      bytes.push_back(i / 4096 >= 50 && i / 4096 < 90 ? 0 : static_cast<char>(i * 7 + i / 4096));
    ASSERT_EQ(::pwrite(launch.kernel_fd, bytes.data(), 50 * 4096, 0), 50 * 4096);
    ASSERT_EQ(::pwrite(launch.kernel_fd, bytes.data() + 90 * 4096, kImage - 90 * 4096, 90 * 4096),
              static_cast<ssize_t>(kImage - 90 * 4096));
    launch.ram_fd = *GuestMemory::create_fd(kRam);
    ram = *GuestMemory::map(launch.ram_fd, kRam);
    images = *Images::open(launch);
  }
  void TearDown() override { images.release(); }

  channel::Launch launch;
  std::string bytes;
  GuestMemory ram;
  Images images;
};

TEST_F(ImagesTest, ARequestShowsTheFiles) {
  const auto request = images.request(launch);
  ASSERT_EQ(request.kernel.size(), kImage);
  EXPECT_EQ(std::memcmp(request.kernel.data(), bytes.data(), kImage), 0);
  EXPECT_TRUE(request.initrd.empty());
}

TEST_F(ImagesTest, BytesComeFromAnyPlaceToAnyPlace) {
  const auto kernel = images.request(launch).kernel;
  for (const u64 first : {u64{0}, u64{4096}, u64{12345}, u64{60 * 4096 + 5}}) {
    const u64 to = 2 * MiB + 3 * first + 1;
    ASSERT_TRUE(images.bring(kernel.subspan(first), ram, Gpa{to})) << first;
    EXPECT_EQ(std::memcmp(ram.host(Gpa{to}), bytes.data() + first, kImage - first), 0) << first;
    EXPECT_EQ(static_cast<char>(*ram.host(Gpa{to - 1})), 0) << first;
    EXPECT_EQ(static_cast<char>(*ram.host(Gpa{to + kImage - first})), 0) << first;
    std::memset(ram.host(Gpa{2 * MiB}), 0, 6 * MiB);
  }
}

TEST_F(ImagesTest, WhatIsOfNoImageIsTheCallers) {
  const std::string other(MiB, 'x');
  EXPECT_FALSE(images.bring(std::as_bytes(std::span{other}), ram, Gpa{MiB}));
  EXPECT_FALSE(images.bring(images.request(launch).kernel.first(100), ram, Gpa{MiB}));  // not worth it
  EXPECT_EQ(static_cast<char>(*ram.host(Gpa{MiB})), 0);
}

TEST_F(ImagesTest, AnAddressIsKnownByItsImage) {
  const auto kernel = images.request(launch).kernel;
  EXPECT_STREQ(images.holds(kernel.data() + kernel.size()), "kernel");  // its last page ends later
  EXPECT_EQ(images.holds(kernel.data() - 1), nullptr);
  EXPECT_EQ(images.holds(&kernel), nullptr);
}

TEST(Images, AFileThatIsNoneIsNamed) {
  channel::Launch launch;
  launch.kernel_fd = 987654;
  const auto images = Images::open(launch);
  ASSERT_FALSE(images);
  EXPECT_NE(images.error().find("kernel: "), std::string::npos) << images.error();
}

}  // namespace
}  // namespace trapline::core
