#include "devices/pic8259.h"

#include <gtest/gtest.h>

#include "fakes.h"

namespace trapline::devices {
namespace {

struct Pic8259Test : testing::Test {
  FakeLine intr;
  PicPair pic{intr};

  void cmd(u8 v) { pic.master().write(0, 1, v); }
  void data(u8 v) { pic.master().write(1, 1, v); }
  void cmd2(u8 v) { pic.slave().write(0, 1, v); }
  void data2(u8 v) { pic.slave().write(1, 1, v); }
  u64 isr() { return cmd(0x0b), pic.master().read(0, 1); }
  u64 irr() { return cmd(0x0a), pic.master().read(0, 1); }
  u64 isr2() { return cmd2(0x0b), pic.slave().read(0, 1); }
  // Linux's init_8259A: vectors 0x30 and 0x38.
  void init(u8 icw4 = 0x01) {
    data(0xff);
    cmd(0x11), data(0x30), data(0x04), data(icw4);
    cmd2(0x11), data2(0x38), data2(0x02), data2(0x01);
    data(0), data2(0);
  }
  void pulse(unsigned irq) { pic.set_irq(irq, true), pic.set_irq(irq, false); }
};

TEST_F(Pic8259Test, LinuxProbeReadsBackTheMask) {
  EXPECT_EQ(pic.master().read(1, 1), 0xff);
  data2(0xff);
  data(0xfb);
  EXPECT_EQ(pic.master().read(1, 1), 0xfb);
}

TEST_F(Pic8259Test, EdgeIsLatchedAcknowledgedAndEnded) {
  init();
  pulse(0);
  EXPECT_TRUE(intr.up);
  EXPECT_EQ(irr(), 1u);
  EXPECT_EQ(pic.acknowledge(), 0x30);
  EXPECT_FALSE(intr.up);
  EXPECT_EQ(irr(), 0u);
  EXPECT_EQ(isr(), 1u);
  pulse(0);
  EXPECT_FALSE(intr.up);  // in service
  cmd(0x20);
  EXPECT_TRUE(intr.up);
  EXPECT_EQ(pic.acknowledge(), 0x30);
  cmd(0x60);  // specific EOI
  EXPECT_EQ(isr(), 0u);
}

TEST_F(Pic8259Test, HeldEdgeLineInterruptsOnce) {
  init();
  pic.set_irq(4, true);
  EXPECT_EQ(pic.acknowledge(), 0x34);
  cmd(0x20);
  EXPECT_FALSE(intr.up);
  pic.set_irq(4, false);
  pic.set_irq(4, true);
  EXPECT_TRUE(intr.up);
}

TEST_F(Pic8259Test, HigherPriorityNestsLowerWaits) {
  init();
  pulse(4);
  EXPECT_EQ(pic.acknowledge(), 0x34);
  pulse(5);
  EXPECT_FALSE(intr.up);
  pulse(1);
  EXPECT_TRUE(intr.up);
  EXPECT_EQ(pic.acknowledge(), 0x31);
  EXPECT_EQ(isr(), 0x12u);
  cmd(0x20);  // ends the highest: 1
  EXPECT_EQ(isr(), 0x10u);
  EXPECT_FALSE(intr.up);
  cmd(0x20);
  EXPECT_EQ(pic.acknowledge(), 0x35);
}

TEST_F(Pic8259Test, SlaveThroughCascade) {
  init();
  pulse(12);
  EXPECT_TRUE(intr.up);
  EXPECT_EQ(pic.acknowledge(), 0x3c);
  EXPECT_EQ(isr(), 4u);
  EXPECT_EQ(isr2(), 0x10u);
  pulse(3);
  EXPECT_FALSE(intr.up);  // IR3 is below the cascade
  pulse(1);
  EXPECT_EQ(pic.acknowledge(), 0x31);
  cmd(0x20);
  cmd2(0x64);  // as Linux ends slave interrupts: specific, slave then master
  cmd(0x62);
  EXPECT_EQ(isr2(), 0u);
  EXPECT_EQ(pic.acknowledge(), 0x33);
}

TEST_F(Pic8259Test, SpecialFullyNestedLetsTheSlaveNest) {
  init(0x11);
  pulse(12);
  EXPECT_EQ(pic.acknowledge(), 0x3c);
  pulse(8);
  EXPECT_TRUE(intr.up);
  EXPECT_EQ(pic.acknowledge(), 0x38);
}

TEST_F(Pic8259Test, SpuriousWhenTheRequestIsGone) {
  init();
  EXPECT_EQ(pic.acknowledge(), 0x37);
  EXPECT_EQ(isr(), 0u);  // how Linux tells that it was not real
  pulse(3);
  data(0x08);
  EXPECT_FALSE(intr.up);
  EXPECT_EQ(pic.acknowledge(), 0x37);
  data(0);
  EXPECT_EQ(pic.acknowledge(), 0x33);
}

TEST_F(Pic8259Test, MaskedSlaveRequestLeavesNoCascadeBehind) {
  init();
  pulse(12);
  data2(0xff);
  EXPECT_FALSE(intr.up);
  EXPECT_EQ(pic.acknowledge(), 0x37);
}

TEST_F(Pic8259Test, LevelLineRepeatsUntilItFalls) {
  init();
  EXPECT_EQ(pic.elcr().read(1, 1), 0x02u);  // the SCI, as firmware sets it
  pic.elcr().write(0, 1, 0xff);
  pic.elcr().write(1, 1, 0xff);
  EXPECT_EQ(pic.elcr().read(0, 1), 0xf8u);
  EXPECT_EQ(pic.elcr().read(1, 1), 0xdeu);
  pic.set_irq(5, true);
  EXPECT_EQ(pic.acknowledge(), 0x35);
  cmd(0x20);
  EXPECT_TRUE(intr.up);
  EXPECT_EQ(pic.acknowledge(), 0x35);
  pic.set_irq(5, false);
  cmd(0x20);
  EXPECT_FALSE(intr.up);
}

TEST_F(Pic8259Test, SpecialMaskModeUnblocksLowerOnes) {
  init();
  pulse(2 + 1);
  EXPECT_EQ(pic.acknowledge(), 0x33);
  pulse(6);
  EXPECT_FALSE(intr.up);
  data(0x08);
  cmd(0x68);  // set special mask
  EXPECT_TRUE(intr.up);
  EXPECT_EQ(pic.acknowledge(), 0x36);
  cmd(0x20);  // nonspecific: the masked one stays in service
  EXPECT_EQ(isr(), 0x08u);
  cmd(0x48);
  pulse(6);
  EXPECT_FALSE(intr.up);
}

TEST_F(Pic8259Test, RotationMovesThePriorities) {
  init();
  cmd(0xc0 | 3);  // IR3 is now the lowest: IR4 the highest
  pulse(1), pulse(4);
  EXPECT_EQ(pic.acknowledge(), 0x34);
  cmd(0xa0);  // rotate on nonspecific EOI: IR4 becomes the lowest
  pulse(4), pulse(5);
  EXPECT_EQ(pic.acknowledge(), 0x35);
  cmd(0x20);
  EXPECT_EQ(pic.acknowledge(), 0x31);
  cmd(0x20);
  EXPECT_EQ(pic.acknowledge(), 0x34);
}

TEST_F(Pic8259Test, AutoEoiLeavesNothingInService) {
  init(0x03);
  pulse(6), pulse(7);
  EXPECT_EQ(pic.acknowledge(), 0x36);
  EXPECT_EQ(isr(), 0u);
  EXPECT_TRUE(intr.up);
  EXPECT_EQ(intr.rises, 2u);  // a fresh edge for the second request
  EXPECT_EQ(pic.acknowledge(), 0x37);
  EXPECT_FALSE(intr.up);
}

TEST_F(Pic8259Test, PollModeAcknowledges) {
  init();
  cmd(0x0c);
  EXPECT_EQ(pic.master().read(0, 1), 0u);
  pulse(5);
  cmd(0x0c);
  EXPECT_EQ(pic.master().read(0, 1), 0x85u);
  EXPECT_EQ(isr(), 0x20u);
  EXPECT_FALSE(intr.up);
}

TEST_F(Pic8259Test, InitForgetsEdges) {
  init();
  pic.set_irq(1, true);
  init();
  EXPECT_FALSE(intr.up);
  pic.set_irq(1, false), pic.set_irq(1, true);
  EXPECT_EQ(pic.acknowledge(), 0x31);
}

}  // namespace
}  // namespace trapline::devices
