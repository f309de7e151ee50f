#include "monitor/interrupts.h"

#include <gtest/gtest.h>

namespace trapline::monitor {
namespace {

constexpr u32 kOn = 1 | 4, kX2 = 2;

TEST(Addressed, Physical) {
  const ApicAddress a{3, 0, ~0u, kOn};
  EXPECT_TRUE(addressed(a, 3, false));
  EXPECT_FALSE(addressed(a, 2, false));
  EXPECT_TRUE(addressed(a, 0xff, false));
  EXPECT_FALSE(addressed({3, 0, ~0u, 0}, 3, false)) << "an APIC switched off by IA32_APIC_BASE answers nothing";
}

TEST(Addressed, LogicalFlat) {
  const ApicAddress a{1, 0x02000000, ~0u, kOn};
  EXPECT_TRUE(addressed(a, 0x03, true));
  EXPECT_FALSE(addressed(a, 0x05, true));
  EXPECT_TRUE(addressed(a, 0xff, true));
}

TEST(Addressed, LogicalCluster) {
  const ApicAddress a{5, 0x12000000, 0x0fffffff, kOn};  // cluster 1, member bit 1
  EXPECT_TRUE(addressed(a, 0x12, true));
  EXPECT_FALSE(addressed(a, 0x22, true));
  EXPECT_FALSE(addressed(a, 0x11, true));
  EXPECT_TRUE(addressed(a, 0xff, true));
}

TEST(Addressed, LogicalX2) {
  EXPECT_TRUE(addressed({2, 0x0004, ~0u, kOn | kX2}, 0x06, true));
  EXPECT_FALSE(addressed({2, 0x0004, ~0u, kOn | kX2}, 0x03, true));
  EXPECT_FALSE(addressed({18, 0x10004, ~0u, kOn | kX2}, 0x04, true)) << "cluster 1 is beyond 8 bits";
}

class InterruptsTest : public testing::Test {
 protected:
  InterruptsTest() : channel{*channel::Channel::create(2)} {
    for (u32 i = 0; i < 2; i++) {
      channel.vcpu(i).mirror.id = i;
      channel.vcpu(i).mirror.ldr = 1u << (24 + i);
      channel.vcpu(i).mirror.dfr = ~0u;
      channel.vcpu(i).mirror.flags = kOn;
    }
    interrupts.attach(channel);
  }
  u64 requests(u32 vcpu, u8 vector) { return channel.vcpu(vcpu).inbox.fixed[vector / 64] >> (vector % 64) & 1; }
  channel::Channel channel;
  Interrupts interrupts;
};

TEST_F(InterruptsTest, AFixedMessageReachesItsDestinationAlone) {
  interrupts.msi(Gpa{0xfee01000}, 0x0041);
  EXPECT_EQ(requests(1, 0x41), 1u);
  EXPECT_EQ(requests(0, 0x41), 0u);
  EXPECT_TRUE(channel.vcpu(1).attention & channel::attention::interrupt);
  EXPECT_EQ(channel.vcpu(1).inbox.level[1], 0u);
}

TEST_F(InterruptsTest, LevelIsPassedOn) {
  interrupts.msi(Gpa{0xfee00000}, 0xc052);
  EXPECT_EQ(channel.vcpu(0).inbox.level[1] >> 18 & 1, 1u);
  interrupts.msi(Gpa{0xfee00000}, 0x0052);
  EXPECT_EQ(channel.vcpu(0).inbox.level[1], 0u);
}

TEST_F(InterruptsTest, LowestPriorityPicksOne) {
  interrupts.msi(Gpa{0xfee03004 | 8}, 0x0141);
  EXPECT_EQ(requests(0, 0x41) + requests(1, 0x41), 1u);
}

TEST_F(InterruptsTest, NmiIgnoresTheSoftwareEnable) {
  channel.vcpu(1).mirror.flags = 1;
  interrupts.msi(Gpa{0xfee01000}, 0x0041);
  EXPECT_EQ(requests(1, 0x41), 0u);
  interrupts.msi(Gpa{0xfee01000}, 0x0400);
  EXPECT_TRUE(channel.vcpu(1).attention & channel::attention::nmi);
}

TEST_F(InterruptsTest, ExtintIsALevel) {
  interrupts.extint(true);
  EXPECT_EQ(channel.vcpu(0).inbox.extint, 3u);
  EXPECT_TRUE(channel.vcpu(0).attention & channel::attention::interrupt);
  interrupts.extint(false);
  EXPECT_EQ(channel.vcpu(0).inbox.extint, 2u);
}

TEST_F(InterruptsTest, APulseOfExtintIsARiseThoughItIsOver) {
  interrupts.extint(true);
  interrupts.extint(false);
  interrupts.extint(true);
  EXPECT_EQ(channel.vcpu(0).inbox.extint, 5u);
  HeldInterrupts held{interrupts};
  held.extint(false);
  held.extint(true);
  held.extint(false);
  held.release();
  EXPECT_EQ(channel.vcpu(0).inbox.extint, 6u);
  held.extint(true);
  held.release();
  held.release();
  EXPECT_EQ(channel.vcpu(0).inbox.extint, 9u);
}

TEST_F(InterruptsTest, HeldOnesComeInOrderAndOnce) {
  HeldInterrupts held{interrupts};
  held.msi(Gpa{0xfee01000}, 0xc041);  // level
  held.msi(Gpa{0xfee01000}, 0x0041);
  held.extint(true);
  held.nmi();
  EXPECT_EQ(requests(1, 0x41), 0u);
  EXPECT_EQ(channel.vcpu(0).attention, 0u);
  held.release();
  EXPECT_EQ(requests(1, 0x41), 1u);
  EXPECT_EQ(channel.vcpu(1).inbox.level[1], 0u) << "the last of them counts";
  EXPECT_EQ(channel.vcpu(0).inbox.extint, 3u);
  EXPECT_TRUE(channel.vcpu(0).attention & channel::attention::nmi);
  channel.vcpu(0).attention = 0;
  channel.vcpu(1).inbox.fixed[1] = 0;
  held.release();
  EXPECT_EQ(channel.vcpu(0).attention, 0u);
  EXPECT_EQ(requests(1, 0x41), 0u);
}

}  // namespace
}  // namespace trapline::monitor
