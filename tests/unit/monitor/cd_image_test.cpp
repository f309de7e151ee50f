#include "monitor/storage/cd_image.h"
#include "wording/vm_error.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <fstream>

namespace trapline::monitor {
namespace {

struct CdFileTest : testing::Test {
  std::string path = "/tmp/trapline-cd-XXXXXX";
  CdFileTest() { ::close(::mkstemp(path.data())); }
  ~CdFileTest() override { ::unlink(path.c_str()); }
};

TEST_F(CdFileTest, TheLastBlockIsFilledUp) {
  std::ofstream{path} << std::string(2048, 'a') << "b";
  auto cd = CdFile::open(path);
  ASSERT_TRUE(cd) << wording::line(cd.error());
  EXPECT_EQ((*cd)->blocks(), 2u);
  std::array<u8, devices::kCdBlock> block{};
  ASSERT_TRUE((*cd)->read(0, block));
  EXPECT_EQ(block[2047], 'a');
  ASSERT_TRUE((*cd)->read(1, block));
  EXPECT_EQ(block[0], 'b');
  EXPECT_EQ(block[1], 0);
  EXPECT_FALSE((*cd)->read(2, block));
}

TEST_F(CdFileTest, WhatIsNoImageIsNamed) {
  const auto empty = CdFile::open(path);
  ASSERT_FALSE(empty);
  EXPECT_NE(wording::line(empty.error()).find("--cdrom " + path + ": is empty"), std::string::npos)
      << wording::line(empty.error());
  EXPECT_FALSE(CdFile::open(path + "-nowhere"));
}

}  // namespace
}  // namespace trapline::monitor
