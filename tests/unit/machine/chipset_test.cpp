#include "machine/chipset.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <utility>
#include <vector>

#include "devices/acpi_pm.h"
#include "unit/devices/fakes.h"

namespace trapline::machine {
namespace {

struct Sinks final : InterruptSink, PowerSink, SerialBackend {
  void msi(Gpa address, u32 data) override { messages.emplace_back(address.raw, data); }
  void extint(bool up) override { intr = up; }
  void nmi() override { nmis++; }
  void power_off() override { offs++; }
  void reset() override { resets++; }
  void debug_exit(u32 value) override { exits.push_back(value); }
  void write(u8 byte) override { serial.push_back(static_cast<char>(byte)); }
  std::vector<std::pair<u64, u32>> messages;
  std::vector<u32> exits;
  std::string serial;
  bool intr = false;
  unsigned nmis = 0, offs = 0, resets = 0;
};

struct ChipsetTest : testing::Test {
  static Config make_config() {
    Config c;
    c.memory = 5 * GiB;
    c.cpus = 4;
    c.append = "console=ttyS0";
    return c;
  }
  Config config = make_config();
  devices::FakeTime time;
  Sinks sinks;
  Chipset chipset{ChipsetParts{config, time, sinks, sinks, sinks}};

  u32 in(u16 port, unsigned size = 1) { return chipset.port_read(port, size); }
  void out(u16 port, u32 value, unsigned size = 1) { chipset.port_write(port, size, value); }
  u32 cmos(u8 index) { return out(0x70, index), in(0x71); }
  std::string fw(u16 key, unsigned n) {
    out(0x510, key, 2);
    std::string bytes;
    for (unsigned i = 0; i < n; i++) bytes.push_back(static_cast<char>(in(0x511)));
    return bytes;
  }
  void redirect(unsigned pin, u32 low) {
    chipset.mmio_write(map::ioapic, 4, 0x10 + 2 * pin);
    chipset.mmio_write(map::ioapic.wrapping_add(0x10), 4, low);
  }
  void init_pics() {
    for (const u16 base : {0x20, 0xa0}) {
      out(base, 0x11);
      out(base + 1, base == 0x20 ? 0x30 : 0x38);
      out(base + 1, base == 0x20 ? 4 : 2);
      out(base + 1, 1);
    }
  }
};

TEST_F(ChipsetTest, NobodyAnswersAllOnes) {
  EXPECT_EQ(in(0x300), 0xffu);
  EXPECT_EQ(in(0x300, 2), 0xffffu);
  EXPECT_EQ(in(0x300, 4), 0xffffffffu);
  EXPECT_EQ(in(0xffff, 4), 0xffffffffu);
  EXPECT_EQ(in(0x300, 3), 0xffffffffu);
  EXPECT_EQ(in(0x514, 4), 0xffffffffu);  // no fw_cfg DMA
  out(0xffff, 0x12345678, 4);
  EXPECT_EQ(chipset.mmio_read(map::hpet, 8), ~u64{0});
  EXPECT_EQ(chipset.mmio_read(map::hpet, 4), 0xffffffffu);
  EXPECT_EQ(chipset.mmio_read(Gpa{0}, 9), ~u64{0});
  EXPECT_EQ(chipset.mmio_read(Gpa{~u64{0}}, 8), ~u64{0});
  chipset.mmio_write(map::hpet, 8, 1);
}

TEST_F(ChipsetTest, WideAccessesAreSplitOverByteDevices) {
  out(0x3f8, 0x41, 1);
  out(0x3fb, 0x0355, 2);  // LCR = 0x55, MCR = 3
  EXPECT_EQ(in(0x3fb), 0x55u);
  EXPECT_EQ(in(0x3fc), 3u);
  EXPECT_EQ(in(0x3fc, 4) >> 8 & 0xff, 0x60u);
  EXPECT_EQ(in(0x3fe, 4) >> 16, 0xffffu);  // beyond the UART: nobody
  EXPECT_EQ(sinks.serial, "A");
  EXPECT_EQ(in(0x60, 4) & 0xff00u, static_cast<u32>(in(0x61)) << 8);
}

TEST_F(ChipsetTest, SerialInterruptReachesBothControllers) {
  init_pics();
  redirect(4, 0x44);
  out(0x3fa, 1);
  out(0x3f9, 1);
  EXPECT_EQ(chipset.console_room(), 16u);
  const u8 text[] = "abc";
  EXPECT_EQ(chipset.console_input(text, 3), 3u);
  EXPECT_TRUE(sinks.intr);
  ASSERT_EQ(sinks.messages.size(), 1u);
  EXPECT_EQ(sinks.messages[0].second, 0x4044u);
  EXPECT_EQ(chipset.pic_acknowledge(), 0x34);
  EXPECT_FALSE(sinks.intr);
  EXPECT_EQ(in(0x3f8), 'a' + 0u);
}

TEST_F(ChipsetTest, TimerIsPin2AndDeadlinesAreMet) {
  init_pics();
  redirect(2, 0x30);
  EXPECT_EQ(chipset.deadline_ns(), devices::kNever);
  out(0x43, 0x34), out(0x40, 0x9c), out(0x40, 0x2e);
  sinks.messages.clear();  // programming may move OUT
  const u64 first = chipset.deadline_ns();
  EXPECT_NEAR(static_cast<double>(first - time.ns), 1e7, 1e4);
  time.ns = first;
  chipset.tick();
  ASSERT_EQ(sinks.messages.size(), 1u);
  EXPECT_TRUE(sinks.intr);
  EXPECT_GT(chipset.deadline_ns(), time.ns);
}

TEST_F(ChipsetTest, SciIsLevel) {
  init_pics();
  redirect(9, 1 << 15 | 0x59);
  out(map::acpi_pm + 2, 0x100, 2);
  chipset.press_power_button();
  ASSERT_EQ(sinks.messages.size(), 1u);
  EXPECT_EQ(sinks.messages[0].second, 0xc059u);
  EXPECT_TRUE(sinks.intr);
  chipset.ioapic_eoi(0x59);
  EXPECT_EQ(sinks.messages.size(), 2u);  // not answered yet
  out(map::acpi_pm, 0x100, 2);
  chipset.ioapic_eoi(0x59);
  EXPECT_EQ(sinks.messages.size(), 2u);
  EXPECT_FALSE(sinks.intr);
}

// FERR# is IRQ 13, whose line stays up until a write to port F0: before that a further error is no edge.
TEST_F(ChipsetTest, NumericErrorsAreIrq13) {
  init_pics();
  out(0x21, 0xfb), out(0xa1, 0xdf);  // the cascade and IR5 of the slave
  chipset.numeric_error();
  EXPECT_TRUE(sinks.intr);
  EXPECT_EQ(chipset.pic_acknowledge(), 0x3d);
  out(0xa0, 0x20), out(0x20, 0x20);
  chipset.numeric_error();
  EXPECT_FALSE(sinks.intr);
  out(0xf0, 0);
  chipset.numeric_error();
  EXPECT_TRUE(sinks.intr);
}

// A timer that nobody listens to wakes nobody: once its request is latched, a further edge would change nothing.
TEST_F(ChipsetTest, AMaskedTimerHasNoDeadline) {
  init_pics();
  out(0x21, 0xff);
  out(0x43, 0x34), out(0x40, 2), out(0x40, 0);
  EXPECT_EQ(chipset.deadline_ns(), devices::kNever) << "OUT rose with the control word, and IRR has it";
  time.ns += 100 * devices::kMs;
  out(0x21, 0xfe);
  EXPECT_TRUE(sinks.intr);
  EXPECT_EQ(chipset.deadline_ns(), devices::kNever) << "unmasked, but not yet acknowledged";
  EXPECT_EQ(chipset.pic_acknowledge(), 0x30);
  EXPECT_FALSE(sinks.intr);
  EXPECT_GT(chipset.deadline_ns(), time.ns) << "what nobody saw is not made up for";
  EXPECT_LT(chipset.deadline_ns(), time.ns + devices::kMs);
}

TEST_F(ChipsetTest, AnUnmaskedPinHearsFromATimerAgain) {
  out(0x43, 0x34), out(0x40, 0), out(0x40, 0);  // 18.2 Hz
  time.ns += 100 * devices::kMs;
  chipset.tick();
  EXPECT_EQ(chipset.deadline_ns(), devices::kNever);
  time.ns += 1000 * devices::kMs;
  redirect(2, 0x30);
  EXPECT_TRUE(sinks.messages.empty()) << "edges on the masked pin are lost";
  const u64 next = chipset.deadline_ns();
  ASSERT_GT(next, time.ns);
  ASSERT_LE(next, time.ns + 55 * devices::kMs);
  time.ns = next;
  chipset.tick();
  EXPECT_EQ(sinks.messages.size(), 1u);
}

// Register C says what happened even if no deadline did; an edge-triggered pin that was masked meanwhile lost its edge.
TEST_F(ChipsetTest, AMaskedClockKeepsItsFlags) {
  init_pics();
  out(0xa1, 0xff);
  out(0x70, 0x0b), out(0x71, 0x42);  // periodic interrupt, 1024 Hz
  time.ns += 10 * devices::kMs;
  chipset.tick();
  EXPECT_EQ(cmos(0x0c), 0xc0u);
  EXPECT_EQ(chipset.deadline_ns(), devices::kNever) << "IR0 of the slave is latched already";
  time.ns += 10 * devices::kMs;
  EXPECT_EQ(cmos(0x0c), 0xc0u);
  time.ns += 10 * devices::kMs;
  redirect(8, 0x38);
  EXPECT_TRUE(sinks.messages.empty());
  EXPECT_EQ(cmos(0x0c), 0xc0u);
  EXPECT_NE(chipset.deadline_ns(), devices::kNever);
}

// Linux asleep has masked the clock's own pin (suspend-to-idle): the alarm comes by the SCI.
TEST_F(ChipsetTest, AClocksAlarmWakesThoughItsPinIsMasked) {
  init_pics();
  out(0xa1, 0xff);
  for (const u8 index : {5, 3, 1}) out(0x70, index), out(0x71, 0xff);  // every second
  out(0x70, 0x0b), out(0x71, 0x22);
  time.ns = chipset.deadline_ns();
  chipset.tick();
  cmos(0x0c);
  time.ns += 1000 * devices::kMs;
  chipset.tick();
  EXPECT_EQ(chipset.deadline_ns(), devices::kNever);
  EXPECT_EQ(cmos(0x0c) & 0x20, 0x20u);
  redirect(map::sci_irq, 0x8039);
  out(map::acpi_pm + 1, 1 << 2);  // RTC_STS
  out(map::acpi_pm + 3, 1 << 2);  // RTC_EN
  EXPECT_TRUE(sinks.messages.empty());
  ASSERT_NE(chipset.deadline_ns(), devices::kNever);
  time.ns = chipset.deadline_ns();
  chipset.tick();
  EXPECT_EQ(sinks.messages.size(), 1u);
}

TEST_F(ChipsetTest, IntrIsPin0) {
  init_pics();
  redirect(0, 0x700);
  out(0x43, 0x30), out(0x40, 1), out(0x40, 0);
  time.ns += 1'000'000;
  chipset.tick();
  ASSERT_EQ(sinks.messages.size(), 1u);
  EXPECT_EQ(sinks.messages[0].second, 0x4700u);
}

TEST_F(ChipsetTest, PowerAndReset) {
  out(map::acpi_pm + 4, devices::kSleepTypeS5 << 10 | 1 << 13, 2);
  EXPECT_EQ(sinks.offs, 1u);
  out(0xcf9, 6);
  EXPECT_EQ(sinks.resets, 1u);
  out(0x64, 0xfe);
  EXPECT_EQ(sinks.resets, 2u);
  out(0x92, 1);
  EXPECT_EQ(sinks.resets, 3u);
  out(map::debug_exit, 0x12345678, 4);
  out(map::debug_exit, 0x10, 1);
  EXPECT_EQ(sinks.exits, (std::vector<u32>{0x12345678, 0x10}));
}

TEST_F(ChipsetTest, CmosTellsMemoryAndCpus) {
  EXPECT_EQ(cmos(0x15) | cmos(0x16) << 8, 640u);
  EXPECT_EQ(cmos(0x17) | cmos(0x18) << 8, 0xffffu);
  EXPECT_EQ(cmos(0x34) | cmos(0x35) << 8, (3 * GiB - 16 * MiB) / (64 * KiB));
  EXPECT_EQ(cmos(0x5b) | cmos(0x5c) << 8 | cmos(0x5d) << 16, 2 * GiB / (64 * KiB));
  EXPECT_EQ(cmos(0x5f), 3u);
  u32 sum = 0;
  for (u8 i = 0x10; i <= 0x2d; i++) sum += cmos(i);
  EXPECT_EQ(cmos(0x2e) << 8 | cmos(0x2f), sum);
}

TEST_F(ChipsetTest, FwCfgTellsMemoryAndCpus) {
  EXPECT_EQ(fw(0, 4), "QEMU");
  EXPECT_EQ(fw(5, 2), std::string("\4\0", 2));
  EXPECT_EQ(fw(0x0f, 2), std::string("\4\0", 2));
  EXPECT_EQ(fw(3, 8), std::string("\0\0\0\x40\1\0\0\0", 8));
  EXPECT_EQ(fw(0x14, 4), std::string("\x0e\0\0\0", 4));
  EXPECT_EQ(fw(0x15, 14), std::string("console=ttyS0\0", 14));
  EXPECT_EQ(fw(0x19, 4), std::string("\0\0\0\1", 4));
  const std::string e820 = fw(0x20, 40);
  EXPECT_EQ(e820.substr(0, 20), std::string("\0\0\0\0\0\0\0\0\0\0\0\xc0\0\0\0\0\1\0\0\0", 20));
  EXPECT_EQ(e820.substr(20), std::string("\0\0\0\0\1\0\0\0\0\0\0\x80\0\0\0\0\1\0\0\0", 20));
}

TEST_F(ChipsetTest, PmTimerIsReadWhole) {
  time.ns = 500 * devices::kSecondNs;
  EXPECT_NEAR(in(0x608, 4), 3579545.0 * 500, 2);
}

TEST_F(ChipsetTest, ResetForgets) {
  out(0x3ff, 0x77);
  out(0x43, 0x34), out(0x40, 0), out(0x40, 1);
  out(0x21, 0);
  redirect(2, 0x30);
  chipset.reset();
  EXPECT_EQ(in(0x3ff), 0u);
  EXPECT_EQ(in(0x21), 0xffu);
  EXPECT_EQ(chipset.deadline_ns(), devices::kNever);
  chipset.mmio_write(map::ioapic, 4, 0x14);
  EXPECT_EQ(chipset.mmio_read(map::ioapic.wrapping_add(0x10), 4), 0x10000u);
}

// Nothing that a guest does may crash, hang or leave a deadline behind that tick() cannot pass.
TEST_F(ChipsetTest, RandomAccesses) {
  constexpr u64 kSeed = 20240607;
  std::mt19937_64 random{kSeed};
  const u16 bases[] = {0x20, 0x40,  0x43,  0x60,  0x64,  0x70,  0x80,  0x92, 0xa0,
                       0xf4, 0x3f8, 0x4d0, 0x510, 0x600, 0x620, 0xcf8, 0xcfc};
  for (unsigned i = 0; i < 300'000; i++) {
    const u64 r = random(), value = random() >> (r >> 40 & 63);
    const unsigned size = r >> 8 & 15;
    const u16 port =
        r & 1 ? static_cast<u16>(random()) : static_cast<u16>(bases[(r >> 16) % std::size(bases)] + (r >> 24 & 7));
    const u64 gpa = r & 2 ? map::ioapic.raw + (r >> 32 & 0x1f) : value;
    const u64 scale = r >> 46 & 63;
    switch (r >> 3 & 7) {
      case 0:
        chipset.port_read(port, size);
        break;
      case 1:
        chipset.port_write(port, 1u << (size & 3), static_cast<u32>(value));
        break;
      case 2:
        chipset.port_write(port, size, static_cast<u32>(value));
        break;
      case 3:
        chipset.mmio_read(Gpa{gpa}, size);
        break;
      case 4:
        chipset.mmio_write(Gpa{gpa}, size, value);
        break;
      case 5:
        chipset.ioapic_eoi(static_cast<u8>(value));
        break;
      case 6:
        chipset.pic_acknowledge();
        break;
      default:
        time.ns += random() >> (scale | 24);
        if (chipset.deadline_ns() <= time.ns) {
          chipset.tick();
          ASSERT_GT(chipset.deadline_ns(), time.ns) << "seed " << kSeed << ", access " << i;
        }
        chipset.console_input(reinterpret_cast<const u8*>(&value), 8);
    }
    if (i % 50'000 == 0) chipset.reset();
    sinks.messages.clear();
  }
  EXPECT_LE(chipset.console_room(), 16u);
}

}  // namespace
}  // namespace trapline::machine
