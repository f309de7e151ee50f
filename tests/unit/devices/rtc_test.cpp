#include "devices/rtc.h"

#include <gtest/gtest.h>

#include "fakes.h"

namespace trapline::devices {
namespace {

struct RtcTest : testing::Test {
  FakeLine irq;
  FakeTime time;
  unsigned alarms = 0;
  Rtc rtc{irq, time, [this] { alarms++; }};

  u64 get(u8 reg) { return rtc.write(0, 1, reg), rtc.read(1, 1); }
  void put(u8 reg, u8 value) { rtc.write(0, 1, reg), rtc.write(1, 1, value); }
  void run_to_deadline() {
    ASSERT_NE(rtc.deadline_ns(), kNever);
    time.ns = rtc.deadline_ns();
    rtc.tick();
  }
};

TEST_F(RtcTest, TellsTheTimeInBcd) {
  EXPECT_EQ(get(0), 0x20u);
  EXPECT_EQ(get(2), 0x13u);
  EXPECT_EQ(get(4), 0x22u);
  EXPECT_EQ(get(6), 3u);
  EXPECT_EQ(get(7), 0x14u);
  EXPECT_EQ(get(8), 0x11u);
  EXPECT_EQ(get(9), 0x23u);
  EXPECT_EQ(get(0x32), 0x20u);
  EXPECT_EQ(get(13), 0x80u);
  time.ns += 86400 * kSecondNs + 45 * kSecondNs;
  EXPECT_EQ(get(0), 0x05u);
  EXPECT_EQ(get(2), 0x14u);
  EXPECT_EQ(get(7), 0x15u);
}

TEST_F(RtcTest, BinaryAndTwelveHours) {
  put(11, 0x04);
  EXPECT_EQ(get(0), 20u);
  EXPECT_EQ(get(4), 0x80u | 10);
  EXPECT_EQ(get(9), 23u);
  put(11, 0x06);
  EXPECT_EQ(get(4), 22u);
}

TEST_F(RtcTest, UpdateInProgressJustBeforeTheSecond) {
  const u64 start = time.ns;
  EXPECT_EQ(get(10), 0x26u);
  time.ns = start + kSecondNs - 200'000;
  EXPECT_EQ(get(10), 0xa6u);
  EXPECT_EQ(get(0), 0x20u);
  time.ns = start + kSecondNs;
  EXPECT_EQ(get(10), 0x26u);
  EXPECT_EQ(get(0), 0x21u);
}

// Linux's mc146818_set_time(): SET, divider reset, registers, divider, SET off.
TEST_F(RtcTest, SettingTheTime) {
  put(11, 0x82);
  put(10, 0x70);
  const u8 values[][2] = {{9, 0x24}, {8, 0x02}, {7, 0x28}, {4, 0x23}, {2, 0x59}, {0, 0x58}, {0x32, 0x20}};
  for (const auto& v : values) put(v[0], v[1]);
  time.ns += 10 * kSecondNs;
  EXPECT_EQ(get(0), 0x58u);  // stands still
  put(10, 0x26);
  put(11, 0x02);
  EXPECT_EQ(get(0), 0x58u);
  time.ns += kSecondNs / 2;
  EXPECT_EQ(get(0), 0x59u);  // the first second after a divider reset is half as long
  time.ns += kSecondNs;
  EXPECT_EQ(get(7), 0x29u);  // 2024 is a leap year
  EXPECT_EQ(get(8), 0x02u);
  EXPECT_EQ(get(4), 0x00u);
  time.ns += 86400 * kSecondNs;
  EXPECT_EQ(get(7), 0x01u);
  EXPECT_EQ(get(8), 0x03u);
}

TEST_F(RtcTest, PeriodicInterruptOncePerAnswer) {
  put(10, 0x23);  // 8192 Hz
  put(11, 0x42);
  const u64 start = time.ns;
  run_to_deadline();
  EXPECT_TRUE(irq.up);
  EXPECT_LE(time.ns - start, 122'100u);
  EXPECT_EQ(rtc.deadline_ns(), kNever);  // until the guest answers
  time.ns += 3600 * kSecondNs;
  rtc.tick();
  EXPECT_EQ(irq.rises, 1u);
  EXPECT_EQ(get(12) & 0xc0, 0xc0u);
  EXPECT_FALSE(irq.up);
  EXPECT_EQ(get(12), 0u);
  EXPECT_LE(rtc.deadline_ns() - time.ns, 122'100u);
}

TEST_F(RtcTest, UpdateInterrupt) {
  const u64 start = time.ns;
  put(11, 0x12);
  EXPECT_EQ(rtc.deadline_ns(), start + kSecondNs);
  run_to_deadline();
  EXPECT_TRUE(irq.up);
  EXPECT_EQ(get(12) & ~u64{0x40}, 0x90u);
  EXPECT_EQ(rtc.deadline_ns(), start + 2 * kSecondNs);
}

TEST_F(RtcTest, FlagsArePolledWithoutInterrupts) {
  get(12);
  time.ns += 2 * kSecondNs;
  EXPECT_EQ(get(12), 0x50u);  // update and periodic, no IRQF
  EXPECT_EQ(irq.rises, 0u);
}

TEST_F(RtcTest, AlarmAtATime) {
  const u64 start = time.ns;
  put(5, 0x22), put(3, 0x15), put(1, 0x00);  // 22:15:00, 100 s ahead
  put(11, 0x22);
  EXPECT_EQ(rtc.deadline_ns(), start + 100 * kSecondNs);
  run_to_deadline();
  EXPECT_TRUE(irq.up);
  EXPECT_EQ(alarms, 1u);
  EXPECT_EQ(get(12) & 0xa0, 0xa0u);
  EXPECT_EQ(rtc.deadline_ns(), start + (100 + 86400) * kSecondNs);
}

TEST_F(RtcTest, AlarmWithWildcards) {
  const u64 start = time.ns;
  put(5, 0xff), put(3, 0xff), put(1, 0x10);
  put(11, 0x22);
  EXPECT_EQ(rtc.deadline_ns(), start + 50 * kSecondNs);
  put(1, 0xc0);
  EXPECT_EQ(rtc.deadline_ns(), start + kSecondNs);
}

TEST_F(RtcTest, ImpossibleAlarmNeverComes) {
  put(5, 0x77), put(3, 0x99), put(1, 0x7f);
  put(11, 0x22);
  EXPECT_EQ(rtc.deadline_ns(), kNever);
}

TEST_F(RtcTest, NvramAndIndexWrap) {
  put(0x80 | 0x40, 0x5a);  // bit 7 is the NMI mask
  EXPECT_EQ(get(0x40), 0x5au);
  EXPECT_EQ(rtc.read(0, 1), 0xffu);
  put(13, 0);
  EXPECT_EQ(get(13), 0x80u);
}

}  // namespace
}  // namespace trapline::devices
