#include "cli/firmware_option.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

namespace trapline::cli {
namespace {

using testing::HasSubstr;

RunOptions with(const std::string& firmware) {
  RunOptions o;
  o.config.firmware = firmware;
  return o;
}
std::string complaint(const RunOptions& o) {
  const auto c = check(o);
  return c ? "" : c.error();
}

TEST(FirmwareOption, TakesTheKernelsPlace) {
  EXPECT_EQ(complaint(with("/dev/null")), "");
  RunOptions o;
  EXPECT_THAT(complaint(o), HasSubstr("--firmware seabios"));
  o = with("bios");
  o.config.kernel = "vmlinuz";
  EXPECT_THAT(complaint(o), HasSubstr("--firmware: --kernel vmlinuz: "));
  o = with("bios");
  o.config.append = "quiet";
  EXPECT_THAT(complaint(o), HasSubstr("--firmware: --append: "));
  o = with("bios");
  o.modules = {"m"};
  EXPECT_THAT(complaint(o), HasSubstr("--firmware: --module: "));
}

TEST(FirmwareOption, SeabiosIsDebians) {
  const auto c = check(with("seabios"));
  if (::access("/usr/share/seabios/bios-256k.bin", F_OK) == 0) {
    ASSERT_TRUE(c) << c.error();
    EXPECT_EQ(c->firmware, "/usr/share/seabios/bios-256k.bin");
  } else {
    ASSERT_FALSE(c);
    EXPECT_THAT(c.error(), HasSubstr("install the Debian package seabios"));
  }
}

TEST(FirmwareOption, Consoles) {
  RunOptions o = with("bios");
  o.console = "vga";
  const auto c = check(o);
  ASSERT_TRUE(c) << c.error();
  EXPECT_TRUE(c->display());
  EXPECT_EQ(c->vga_bios, "/usr/share/seabios/vgabios.bin");
  o.console = "curses";
  EXPECT_THAT(complaint(o), HasSubstr("--console curses: no such console: use serial or vga"));
  o.console = "vga";
  o.clock = "instructions";
  EXPECT_THAT(complaint(o), HasSubstr("--console vga: "));
  RunOptions kernel;
  kernel.config.kernel = "vmlinuz";
  kernel.console = "vga";
  EXPECT_THAT(complaint(kernel), HasSubstr("--console vga: "));
  kernel.console = "serial";
  kernel.config.boot_menu = true;
  EXPECT_THAT(complaint(kernel), HasSubstr("--boot-menu: "));
  kernel.config.boot_menu = false;
  kernel.config.cdrom = "cd.iso";  // a kernel may have a CD, too
  EXPECT_EQ(complaint(kernel), "");
}

TEST(FirmwareOption, TheBoardsFunctionsTakeSlots) {
  RunOptions o = with("bios");
  o.disks.assign(28, "disk");
  EXPECT_EQ(complaint(o), "");
  o.disks.push_back("disk");
  EXPECT_THAT(complaint(o), HasSubstr("29 virtio devices: PCI has slots for 28"));
}

}  // namespace
}  // namespace trapline::cli
