#include "devices/pit8254.h"

#include <gtest/gtest.h>

#include "fakes.h"

namespace trapline::devices {
namespace {

struct Pit8254Test : testing::Test {
  FakeLine irq;
  FakeTime time;
  Pit8254 pit{irq, time};

  static constexpr u64 ticks(u64 n) { return (n * kSecondNs + kPitHz - 1) / kPitHz; }
  void control(u8 v) { pit.write(3, 1, v); }
  void load(unsigned c, u16 v) { pit.write(c, 1, v & 0xff), pit.write(c, 1, v >> 8); }
  unsigned read16(unsigned c) {
    const u64 low = pit.read(c, 1);
    return static_cast<unsigned>(low | pit.read(c, 1) << 8);
  }
  u64 port61() { return pit.control_port().read(0, 1); }
  void run_to_deadline() {
    ASSERT_NE(pit.deadline_ns(), kNever);
    time.ns = pit.deadline_ns();
    pit.tick();
  }
};

TEST_F(Pit8254Test, IdleUntilProgrammed) {
  EXPECT_EQ(pit.deadline_ns(), kNever);
  control(0x34);
  EXPECT_EQ(pit.deadline_ns(), kNever);
}

// Linux: 100 Hz through mode 2.
TEST_F(Pit8254Test, PeriodicInterruptKeepsItsPhase) {
  control(0x34);
  const unsigned before = irq.rises;
  load(0, 11932);
  const u64 start = time.ns;
  for (int i = 0; i < 100; i++) run_to_deadline();
  EXPECT_EQ(irq.rises - before, 100u);
  EXPECT_NEAR(static_cast<double>(time.ns - start), 100.0 * 11932 * 1e9 / kPitHz, 2000.0);
}

TEST_F(Pit8254Test, MissedPeriodsMakeOneInterrupt) {
  control(0x34);
  load(0, 1193);
  const unsigned before = irq.rises;
  time.ns += 3600 * kSecondNs;
  pit.tick();
  EXPECT_EQ(irq.rises, before + 1);
  EXPECT_GT(pit.deadline_ns(), time.ns);
  EXPECT_LE(pit.deadline_ns(), time.ns + 2 * kMs);
}

TEST_F(Pit8254Test, TinyPeriodsAreNotAStorm) {
  control(0x14);
  pit.write(0, 1, 1);
  u64 last = time.ns;
  run_to_deadline();
  for (int i = 0; i < 10; i++) {
    last = time.ns;
    run_to_deadline();
    EXPECT_GE(time.ns - last, 50'000u);
  }
}

TEST_F(Pit8254Test, OneShotMode4FiresOnce) {
  control(0x38);
  load(0, 1000);
  const unsigned before = irq.rises;
  run_to_deadline();
  EXPECT_EQ(irq.rises, before + 1);
  EXPECT_EQ(pit.deadline_ns(), kNever);
  load(0, 500);  // the next event: no new control word
  run_to_deadline();
  EXPECT_EQ(irq.rises, before + 2);
}

TEST_F(Pit8254Test, Mode0RaisesOnTerminalCount) {
  control(0x30);
  EXPECT_FALSE(irq.up);
  load(0, 100);
  EXPECT_FALSE(irq.up);
  time.ns += ticks(50);
  pit.tick();
  EXPECT_FALSE(irq.up);
  run_to_deadline();
  EXPECT_TRUE(irq.up);
  EXPECT_EQ(pit.deadline_ns(), kNever);
  load(0, 100);
  EXPECT_FALSE(irq.up);
}

TEST_F(Pit8254Test, CountsDownAndLatches) {
  control(0x34);
  load(0, 10000);
  time.ns += ticks(2501);
  control(0x00);
  time.ns += ticks(1000);
  EXPECT_NEAR(read16(0), 7500, 1);  // as it was when latched
  EXPECT_NEAR(read16(0), 6500, 2);
  time.ns += ticks(10000);
  EXPECT_NEAR(read16(0), 6500, 3);
}

TEST_F(Pit8254Test, ReadBackGivesStatusThenCount) {
  control(0x34);
  control(0xe2);                     // status of counter 0
  EXPECT_EQ(pit.read(0, 1), 0xf4u);  // OUT high, null count, both bytes, mode 2
  load(0, 1000);
  time.ns += ticks(101);
  control(0xc2);
  EXPECT_EQ(pit.read(0, 1), 0xb4u);
  time.ns += ticks(300);
  EXPECT_NEAR(read16(0), 900, 1);
}

TEST_F(Pit8254Test, BcdCounts) {
  control(0x35);
  load(0, 0x1000);
  time.ns += ticks(2);
  EXPECT_NEAR(read16(0), 0x999, 1);
  load(0, 0xffff);  // no digits: must only be harmless
  time.ns += kSecondNs;
  pit.tick();
  read16(0);
}

TEST_F(Pit8254Test, NewPeriodTakesOverAtTheEndOfTheOld) {
  control(0x34);
  load(0, 10000);
  time.ns += ticks(5001);
  load(0, 100);
  EXPECT_NEAR(read16(0), 5000, 1);
  const u64 at = time.ns;
  run_to_deadline();
  EXPECT_NEAR(static_cast<double>(time.ns - at), static_cast<double>(ticks(5000)), 2000.0);
  const u64 then = time.ns;
  run_to_deadline();
  EXPECT_NEAR(static_cast<double>(time.ns - then), static_cast<double>(ticks(100)), 1000.0);
}

TEST_F(Pit8254Test, SquareWave) {
  control(0xb6);
  load(2, 1000);
  pit.control_port().write(0, 1, 1);
  time.ns += ticks(101);
  EXPECT_TRUE(port61() & 0x20);
  EXPECT_NEAR(read16(2), 800, 2);
  time.ns += ticks(500);
  EXPECT_FALSE(port61() & 0x20);
  EXPECT_NEAR(read16(2), 800, 4);
  pit.control_port().write(0, 1, 0);
  EXPECT_TRUE(port61() & 0x20);
}

// Linux's pit_calibrate_tsc(): counter 2 in mode 0, the gate up, poll OUT2.
TEST_F(Pit8254Test, TscCalibrationPolling) {
  pit.control_port().write(0, 1, (port61() & ~u64{2}) | 1);
  control(0xb0);
  load(2, static_cast<u16>(kPitHz / 20));
  const u64 start = time.ns;
  unsigned polls = 0;
  while (!(port61() & 0x20) && polls < 100000) {
    time.ns += 1000;
    polls++;
  }
  EXPECT_NEAR(static_cast<double>(time.ns - start), 50e6, 5000.0);
  EXPECT_GT(polls, 1000u);
}

// Linux's quick_pit_calibrate(): the high byte steps down once per 256 ticks.
TEST_F(Pit8254Test, QuickCalibrationSeesEveryHighByte) {
  pit.control_port().write(0, 1, 1);
  control(0xb0);
  load(2, 0xffff);
  u64 expected = 0xff;
  for (int i = 0; i < 20000 && expected > 0xe0; i++) {
    pit.read(2, 1);
    const u64 high = pit.read(2, 1);
    ASSERT_TRUE(high == expected || high == expected - 1) << high;
    expected = high;
    time.ns += 2000;
  }
  EXPECT_EQ(expected, 0xe0u);
}

TEST_F(Pit8254Test, GatePausesMode0) {
  pit.control_port().write(0, 1, 1);
  control(0xb0);
  load(2, 1000);
  time.ns += ticks(400);
  pit.control_port().write(0, 1, 0);
  time.ns += kSecondNs;
  EXPECT_NEAR(read16(2), 600, 2);
  EXPECT_FALSE(port61() & 0x20);
  pit.control_port().write(0, 1, 1);
  time.ns += ticks(590);
  EXPECT_FALSE(port61() & 0x20);
  time.ns += ticks(20);
  EXPECT_TRUE(port61() & 0x20);
}

TEST_F(Pit8254Test, OneShotModesWaitForTheGate) {
  control(0xb2);
  load(2, 100);
  time.ns += kSecondNs;
  EXPECT_TRUE(port61() & 0x20);
  pit.control_port().write(0, 1, 1);
  time.ns += ticks(50);
  EXPECT_FALSE(port61() & 0x20);
  time.ns += ticks(60);
  EXPECT_TRUE(port61() & 0x20);
}

TEST_F(Pit8254Test, RefreshBitToggles) {
  unsigned toggles = 0;
  u64 last = port61() & 0x10;
  for (int i = 0; i < 1000; i++, time.ns += 1000) {
    const u64 bit = port61() & 0x10;
    toggles += bit != last;
    last = bit;
  }
  EXPECT_NEAR(toggles, 66, 2);
}

TEST_F(Pit8254Test, HugeTimesAreSafe) {
  control(0x36);
  load(0, 0);
  time.ns = kNever - 1;
  pit.tick();
  read16(0);
  control(0xc2);
  pit.read(0, 1);
  control(0x30);
  load(0, 0);
}

// What the core answers without looking at the counters: latched bytes, in the order of the counter's access.
TEST(PitReader, ServesWhatIsLatchedAlone) {
  PitReader::Counters counters;
  counters[0].write_control(0x34, 0);  // mode 2, low and high byte
  counters[0].write(0x34, 0), counters[0].write(0x12, 0);
  counters[1].write_control(0x60, 0);  // mode 0, high byte only
  counters[1].write(0x56, 0);
  PitReader reader;
  EXPECT_EQ(reader.read_latched(0), std::nullopt);
  ASSERT_TRUE(reader.command(0xc4, counters, 1));  // read-back of counters 0 and 1's count and status
  EXPECT_EQ(reader.read_latched(0), std::nullopt);
  ASSERT_TRUE(reader.command(0xc6, counters, 1));
  EXPECT_EQ(reader.read_latched(0), u8{0xb4});
  EXPECT_EQ(reader.read_latched(0), u8{0x34});
  EXPECT_EQ(reader.read_latched(0), u8{0x12});
  EXPECT_EQ(reader.read_latched(0), std::nullopt);
  EXPECT_EQ(reader.read_latched(1), u8{0x20});
  EXPECT_EQ(reader.read_latched(1), u8{0x56});
  EXPECT_EQ(reader.read_latched(1), std::nullopt);
}

}  // namespace
}  // namespace trapline::devices
