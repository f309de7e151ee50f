#include "cli/vsock_option.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace trapline::cli {
namespace {

using testing::HasSubstr;

TEST(VsockOption, BothInAnyOrder) {
  const machine::VsockConfig expected{7, "/run/x.sock"};
  EXPECT_EQ(*parse_vsock("cid=7,path=/run/x.sock"), expected);
  EXPECT_EQ(*parse_vsock("path=/run/x.sock,cid=7"), expected);
}

TEST(VsockOption, WhatCannotBeIsNamed) {
  const auto wrong = [](const std::string& text) { return parse_vsock(text) ? "" : parse_vsock(text).error(); };
  for (const char* cid : {"2", "0", "-1", "4294967295", "4294967296", "7x", ""})
    EXPECT_THAT(wrong("path=a,cid=" + std::string{cid}), HasSubstr("give a number from 3 to 4294967294")) << cid;
  EXPECT_THAT(wrong("cid=7"), HasSubstr("give both"));
  EXPECT_THAT(wrong("path=a"), HasSubstr("give both"));
  EXPECT_THAT(wrong("cid=7,path=a,port=1"), HasSubstr("give cid=NUMBER,path=SOCKET"));
}

}  // namespace
}  // namespace trapline::cli
