#include "cli/disk_option.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace trapline::cli {
namespace {

using machine::DiskConfig;
using machine::DiskFormat;
using testing::HasSubstr;

DiskConfig good(const std::string& text) {
  const auto disk = parse_disk(text);
  EXPECT_TRUE(disk) << disk.error();
  return disk ? *disk : DiskConfig{};
}

TEST(DiskOption, OptionsInAnyOrder) {
  EXPECT_EQ(good("a.img"), (DiskConfig{.path = "a.img", .serial = ""}));
  EXPECT_EQ(good("a.img,format=raw,readonly"),
            (DiskConfig{.path = "a.img", .serial = "", .format = DiskFormat::raw, .read_only = true}));
  EXPECT_EQ(good("a.img,format=qcow2"), (DiskConfig{.path = "a.img", .serial = "", .format = DiskFormat::qcow2}));
  EXPECT_EQ(good("a.img,discard,serial=disk 0,snapshot"),
            (DiskConfig{.path = "a.img", .serial = "disk 0", .snapshot = true, .discard = true}));
  EXPECT_EQ(good("vhost-user=/run/a,,b"), (DiskConfig{.path = "/run/a,b", .serial = "", .vhost_user = true}));
  EXPECT_EQ(good("a,,b,readonly"), (DiskConfig{.path = "a,b", .serial = "", .read_only = true}));
}

TEST(DiskOption, WhatCannotBeIsNamed) {
  const auto wrong = [](const std::string& text) { return parse_disk(text) ? "" : parse_disk(text).error(); };
  EXPECT_THAT(wrong(""), HasSubstr("name a file"));
  EXPECT_THAT(wrong(",readonly"), HasSubstr("name a file"));
  EXPECT_THAT(wrong("vhost-user="), HasSubstr("name a socket"));
  EXPECT_THAT(wrong("vhost-user=/a,readonly"), HasSubstr("readonly: the back end decides that"));
  EXPECT_THAT(wrong("a,read-only"), HasSubstr("no option read-only: give format=raw or qcow2, readonly"));
  EXPECT_THAT(wrong("a,readonly=on"), HasSubstr("no option readonly=on"));
  EXPECT_THAT(wrong("a,"), HasSubstr("no option"));
  EXPECT_THAT(wrong("a,format=vmdk"), HasSubstr("format vmdk: give raw or qcow2"));
  EXPECT_THAT(wrong("a,serial="), HasSubstr("1 to 20 bytes"));
  EXPECT_THAT(wrong("a,serial=123456789012345678901"), HasSubstr("1 to 20 bytes"));
  EXPECT_THAT(wrong("a,readonly,snapshot"), HasSubstr("give one of them"));
}

}  // namespace
}  // namespace trapline::cli
