#include <gtest/gtest.h>

#include <string>

#include "devices/acpi_pm.h"
#include "devices/board_ports.h"
#include "devices/fw_cfg.h"
#include "devices/i8042.h"
#include "fakes.h"

namespace trapline::devices {
namespace {

struct I8042Test : testing::Test {
  FakeLine irq1, irq12;
  unsigned resets = 0;
  I8042 kbd{irq1, irq12, [this] { resets++; }};
  u64 status() { return kbd.read(4, 1); }
  u64 data() { return kbd.read(0, 1); }
  u64 ask(u8 command) {
    kbd.write(4, 1, command);
    EXPECT_TRUE(status() & 1);
    return data();
  }
};

TEST_F(I8042Test, ControllerAnswers) {
  EXPECT_EQ(status() & 3, 0u);
  EXPECT_EQ(ask(0xaa), 0x55u);
  EXPECT_EQ(status() & 1, 0u);
  EXPECT_EQ(ask(0xab), 0u);
  kbd.write(4, 1, 0x60);
  kbd.write(0, 1, 0x65);
  EXPECT_EQ(ask(0x20), 0x65u);
  EXPECT_NE(ask(0xa9), 0u);  // no auxiliary port
}

// Linux takes the loop test's echo for a port only when the status says that it came from there.
TEST_F(I8042Test, NoAuxiliaryPort) {
  kbd.write(4, 1, 0xd3);
  kbd.write(0, 1, 0x5a);
  EXPECT_EQ(status() & 0x21, 0x01u);
}

TEST_F(I8042Test, AbsentKeyboardTimesOutAtOnce) {
  kbd.write(4, 1, 0x60);
  kbd.write(0, 1, 0x01);
  kbd.write(0, 1, 0xf2);
  EXPECT_TRUE(irq1.up);
  EXPECT_EQ(status() & 0x41, 0x41u);
  EXPECT_EQ(data(), 0xfeu);
  EXPECT_FALSE(irq1.up);
}

TEST_F(I8042Test, ResetsTheCpu) {
  kbd.write(4, 1, 0xff);
  EXPECT_EQ(resets, 0u);
  kbd.write(4, 1, 0xfe);
  EXPECT_EQ(resets, 1u);
  kbd.write(4, 1, 0xd1);
  kbd.write(0, 1, 0xdd);
  EXPECT_EQ(resets, 1u);
  EXPECT_EQ(ask(0xd0), 0xddu);
  kbd.write(4, 1, 0xd1);
  kbd.write(0, 1, 0x02);
  EXPECT_EQ(resets, 2u);
}

struct AcpiPmTest : testing::Test {
  FakeLine sci;
  FakeTime time;
  unsigned offs = 0;
  AcpiPm pm{sci, time, [this] { offs++; }};
};

TEST_F(AcpiPmTest, TimerRunsAtItsRate) {
  const u64 before = pm.read(8, 4);
  time.ns += kSecondNs;
  EXPECT_NEAR(static_cast<double>(pm.read(8, 4) - before), 3579545.0, 1.0);
  EXPECT_EQ(pm.read(8, 2), pm.read(8, 4) & 0xffff);
}

TEST_F(AcpiPmTest, PowerOffNeedsTypeAndEnable) {
  EXPECT_EQ(pm.read(4, 2), 1u);  // SCI_EN
  pm.write(4, 2, kSleepTypeS5 << 10);
  EXPECT_EQ(offs, 0u);
  pm.write(4, 2, 1 << 13);
  EXPECT_EQ(offs, 0u);
  pm.write(4, 2, kSleepTypeS5 << 10 | 1 << 13 | 1);  // as acpi_enter_sleep_state does
  EXPECT_EQ(offs, 1u);
  EXPECT_EQ(pm.read(4, 2), (kSleepTypeS5 << 10 | 1u));
}

TEST_F(AcpiPmTest, TimerOverflowInterrupts) {
  pm.write(2, 2, 1);
  ASSERT_NE(pm.deadline_ns(), kNever);
  EXPECT_LT(pm.deadline_ns(), 601 * kSecondNs);
  time.ns = pm.deadline_ns();
  pm.tick();
  EXPECT_TRUE(sci.up);
  EXPECT_EQ(pm.deadline_ns(), kNever);
  EXPECT_EQ(pm.read(0, 2) & 1, 1u);
  pm.write(0, 2, 1);
  EXPECT_FALSE(sci.up);
  EXPECT_GT(pm.deadline_ns(), time.ns);
}

TEST_F(AcpiPmTest, PowerButton) {
  pm.press_power_button();
  EXPECT_FALSE(sci.up);
  pm.write(3, 1, 1);
  EXPECT_TRUE(sci.up);
  EXPECT_EQ(pm.read(0, 4), 0x01000100u);
  pm.write(1, 1, 1);
  EXPECT_FALSE(sci.up);
}

TEST_F(AcpiPmTest, ClockAlarm) {
  pm.write(2, 2, 1 << 10);
  EXPECT_FALSE(sci.up);
  pm.clock_alarm();
  EXPECT_TRUE(sci.up);
  EXPECT_EQ(pm.read(0, 2), 1u << 10);
  pm.write(0, 2, 1 << 10);
  EXPECT_FALSE(sci.up);
}

TEST(FwCfgTest, SignatureItemsAndDirectory) {
  FwCfg fw;
  fw.add_number(FwCfg::nb_cpus, 4, 2);
  fw.add_file("etc/e820", {1, 2, 3});
  const auto bytes = [&](u16 key, unsigned n) {
    fw.write(0, 2, key);
    std::string out;
    for (unsigned i = 0; i < n; i++) out.push_back(static_cast<char>(fw.read(1, 1)));
    return out;
  };
  EXPECT_EQ(bytes(0, 6), std::string("QEMU\0\0", 6));
  EXPECT_EQ(bytes(1, 4), std::string("\1\0\0\0", 4));  // no DMA
  EXPECT_EQ(bytes(5, 2), std::string("\4\0", 2));
  const std::string dir = bytes(0x19, 4 + 64 + 1);
  EXPECT_EQ(dir.substr(0, 12), std::string("\0\0\0\1\0\0\0\3\0\x20\0\0", 12));
  EXPECT_STREQ(dir.c_str() + 12, "etc/e820");
  EXPECT_EQ(bytes(0x20, 3), "\1\2\3");
  EXPECT_EQ(bytes(0x7777, 1), std::string("\0", 1));
  fw.write(0, 1, 5);  // a byte does not select
  EXPECT_EQ(fw.read(1, 1), 0u);
  EXPECT_EQ(fw.read(0, 2) & 0xffff, 0xffffu);
}

TEST(BoardPortsTest, ResetsOnRisingBits) {
  unsigned resets = 0;
  ResetControl control{[&] { resets++; }};
  control.write(0, 1, 2);
  EXPECT_EQ(resets, 0u);
  control.write(0, 1, 6);
  EXPECT_EQ(resets, 1u);
  control.write(0, 1, 6);
  EXPECT_EQ(resets, 1u);
  SystemControlA port92{[&] { resets++; }};
  EXPECT_EQ(port92.read(0, 1), 2u);
  port92.write(0, 1, 3);
  EXPECT_EQ(resets, 2u);
}

}  // namespace
}  // namespace trapline::devices
