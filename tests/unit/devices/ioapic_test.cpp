#include "devices/ioapic.h"

#include <gtest/gtest.h>

#include <utility>
#include <vector>

namespace trapline::devices {
namespace {

struct IoApicTest : testing::Test, MsiSink {
  std::vector<std::pair<u64, u32>> sent;
  IoApic ioapic{*this, 0x00ff0000};

  void msi(Gpa address, u32 data) override { sent.emplace_back(address.raw, data); }
  void select(u8 reg) { ioapic.write(0x00, 4, reg); }
  u64 get(u8 reg) { return select(reg), ioapic.read(0x10, 4); }
  void put(u8 reg, u32 value) { select(reg), ioapic.write(0x10, 4, value); }
  void entry(unsigned pin, u64 value) {
    put(static_cast<u8>(0x11 + 2 * pin), static_cast<u32>(value >> 32));
    put(static_cast<u8>(0x10 + 2 * pin), static_cast<u32>(value));
  }
  static constexpr u64 kLevel = 1 << 15, kLow = 1 << 13, kMasked = 1 << 16, kRemoteIrr = 1 << 14;
};

TEST_F(IoApicTest, Identifies) {
  EXPECT_EQ(get(1), 0x00170020u);
  put(0, 0xff000000);
  EXPECT_EQ(get(0), 0x0f000000u);
  for (u8 pin = 0; pin < 24; pin++) EXPECT_EQ(get(static_cast<u8>(0x10 + 2 * pin)), kMasked);
  EXPECT_EQ(get(0x40), 0u);
  EXPECT_EQ(get(0xff), 0u);
}

TEST_F(IoApicTest, EdgeBecomesAMessage) {
  entry(4, 0x0300'0000'0000'0834);  // logical destination 3, vector 0x34
  ioapic.set_irq(4, true);
  ioapic.set_irq(4, true);
  ioapic.set_irq(4, false);
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(sent[0].first, 0xfee03004u);
  EXPECT_EQ(sent[0].second, 0x4034u);
  ioapic.set_irq(4, true);
  EXPECT_EQ(sent.size(), 2u);  // no EOI needed
}

TEST_F(IoApicTest, EdgeOnAMaskedPinIsLost) {
  entry(4, kMasked | 0x34);
  ioapic.set_irq(4, true);
  entry(4, 0x34);
  EXPECT_TRUE(sent.empty());
}

TEST_F(IoApicTest, LevelRepeatsAfterEoi) {
  entry(9, kLevel | 0x39);
  ioapic.set_irq(9, true);
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(sent[0].second, 0xc039u);
  EXPECT_EQ(get(0x10 + 18), kLevel | kRemoteIrr | 0x39);
  ioapic.set_irq(9, false), ioapic.set_irq(9, true);
  EXPECT_EQ(sent.size(), 1u);  // remote IRR holds it back
  ioapic.eoi(0x38);
  EXPECT_EQ(sent.size(), 1u);
  ioapic.eoi(0x39);
  EXPECT_EQ(sent.size(), 2u);
  ioapic.set_irq(9, false);
  ioapic.write(0x40, 4, 0x39);  // the EOI register
  EXPECT_EQ(sent.size(), 2u);
  EXPECT_EQ(get(0x10 + 18), kLevel | 0x39);
}

TEST_F(IoApicTest, MaskedLevelFiresWhenUnmasked) {
  entry(9, kLevel | kMasked | 0x39);
  ioapic.set_irq(9, true);
  EXPECT_TRUE(sent.empty());
  entry(9, kLevel | 0x39);
  EXPECT_EQ(sent.size(), 1u);
}

TEST_F(IoApicTest, TurningToEdgeClearsRemoteIrr) {
  entry(9, kLevel | 0x39);
  ioapic.set_irq(9, true);
  entry(9, kMasked | 0x39);
  EXPECT_EQ(get(0x10 + 18), kMasked | 0x39);
  entry(9, kLevel | 0x39);
  EXPECT_EQ(sent.size(), 2u);
}

TEST_F(IoApicTest, PciPinsAreActiveLow) {
  entry(16, kLevel | kLow | 0x50);
  EXPECT_TRUE(sent.empty());
  ioapic.set_irq(16, true);
  EXPECT_EQ(sent.size(), 1u);
  entry(10, kLevel | kLow | 0x51);  // an idle ISA line read upside down is a request
  EXPECT_EQ(sent.size(), 2u);
}

TEST_F(IoApicTest, OtherDeliveryModesNeedNoEoi) {
  entry(0, kLevel | 0x700);  // ExtINT
  ioapic.set_irq(0, true);
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(sent[0].second, 0x4700u);
  EXPECT_FALSE(get(0x10) & kRemoteIrr);
  entry(1, 0x400);
  ioapic.set_irq(1, true);
  EXPECT_EQ(sent[1].second, 0x4400u);  // NMI
}

TEST_F(IoApicTest, PinsBeyondTheLastAreIgnored) {
  ioapic.set_irq(24, true);
  ioapic.set_irq(~0u, true);
  EXPECT_TRUE(sent.empty());
}

}  // namespace
}  // namespace trapline::devices
