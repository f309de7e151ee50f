// The board as firmware finds it.
#include <gtest/gtest.h>

#include "machine/chipset.h"
#include "support/virtio_driver.h"
#include "unit/devices/fakes.h"

namespace trapline::machine {
namespace {

struct Sinks final : InterruptSink, PowerSink, SerialBackend {
  void msi(Gpa, u32) override {}
  void extint(bool) override {}
  void nmi() override {}
  void power_off() override {}
  void reset() override { resets++; }
  void debug_exit(u32) override {}
  void write(u8) override {}
  unsigned resets = 0;
};

struct FakeCd final : devices::CdImage {
  u32 blocks() const override { return 10; }
  bool read(u32, std::span<u8, devices::kCdBlock>) override { return true; }
};

struct FirmwareBoard : testing::Test {
  static Config make_config(ConsoleChoice console) {
    Config c;
    c.firmware = "bios";
    c.cdrom = "cd";
    c.console = console;
    return c;
  }
  explicit FirmwareBoard(ConsoleChoice console = ConsoleChoice::serial) : config{make_config(console)} {}
  Config config;
  devices::FakeTime time;
  Sinks sinks;
  test::FakeDma dma;
  FakeCd cd;
  Chipset chipset{ChipsetParts{config, time, sinks, sinks, sinks, {}, &dma, {}, &cd}};

  u32 in(u16 port, unsigned size = 1) { return chipset.port_read(port, size); }
  void out(u16 port, u32 value, unsigned size = 1) { chipset.port_write(port, size, value); }
  u32 config_read(u32 slot, u32 reg, unsigned size = 4) {
    out(0xcf8, 0x80000000 | slot << 11 | (reg & ~3u), 4);
    return in(static_cast<u16>(0xcfc + (reg & 3)), size);
  }
  void config_write(u32 slot, u32 reg, u32 value, unsigned size = 1) {
    out(0xcf8, 0x80000000 | slot << 11 | (reg & ~3u), 4);
    out(static_cast<u16>(0xcfc + (reg & 3)), value, size);
  }
};

TEST_F(FirmwareBoard, HasTheFunctionsOfA440Fx) {
  EXPECT_EQ(config_read(0, 0), 0x12378086u);
  EXPECT_EQ(config_read(0, 0x2c), 0x11001af4u);  // by which SeaBIOS goes
  EXPECT_EQ(config_read(29, 0), 0x70108086u);
  EXPECT_EQ(config_read(30, 0), 0x71138086u);
  EXPECT_EQ(config_read(31, 0), 0x70008086u);
  EXPECT_EQ(config_read(30, 0x40, 2), 0x601u);
  EXPECT_EQ(config_read(30, 0x58) >> 25 & 1, 1u);  // SMM counts as set up
}

TEST_F(FirmwareBoard, PamRemembersUntilReset) {
  EXPECT_EQ(config_read(0, 0x59, 1), 0u);
  config_write(0, 0x59, 0x30);
  config_write(0, 0x5a, 0xff);
  EXPECT_EQ(config_read(0, 0x59, 1), 0x30u);
  EXPECT_EQ(config_read(0, 0x5a, 1), 0x33u);
  chipset.reset();
  EXPECT_EQ(config_read(0, 0x59, 1), 0u);
}

TEST_F(FirmwareBoard, FirmwarePlacesTheBusMaster) {
  EXPECT_EQ(config_read(29, 0x20), 1u);
  config_write(29, 0x20, 0xc000, 4);
  config_write(29, 4, 5, 2);
  out(0xc004, 0x12345678, 4);
  EXPECT_EQ(in(0xc004, 4), 0x12345678u);
}

TEST_F(FirmwareBoard, TheDriveIsWhereAnAtHasIt) {
  EXPECT_EQ(in(0x1f4), 0x14u);
  EXPECT_EQ(in(0x1f5), 0xebu);
  EXPECT_EQ(in(0x170), 0xffu);
  out(0x1f7, 0xa1);
  EXPECT_EQ(in(0x1f7), 0x58u);
  EXPECT_EQ(in(0x1f0, 2), 0x85c0u);
}

TEST_F(FirmwareBoard, FwCfgHasDma) { EXPECT_EQ(in(0x514, 4), __builtin_bswap32(0x51454d55)); }

TEST_F(FirmwareBoard, InputGoesToTheSerialPort) {
  EXPECT_FALSE(chipset.text_mode());
  const u8 text[] = {'a'};
  EXPECT_EQ(chipset.console_input(text, 1), 1u);
  EXPECT_EQ(in(0x3fd) & 1, 1u);
  EXPECT_EQ(in(0x64) & 1, 0u);
}

struct DisplayBoard : FirmwareBoard {
  DisplayBoard() : FirmwareBoard{ConsoleChoice::vga} {}
};

TEST_F(DisplayBoard, InputGoesToTheKeyboard) {
  ASSERT_TRUE(chipset.text_mode());
  out(0x60, 0xf4);
  EXPECT_EQ(in(0x60), 0xfau);
  const u8 text[] = {'a'};
  EXPECT_EQ(chipset.console_input(text, 1), 1u);
  EXPECT_EQ(in(0x3fd) & 1, 0u);
  EXPECT_EQ(in(0x60), 0x1cu);
}

TEST_F(DisplayBoard, HasVgaRegisters) {
  out(0x3c2, 0x67);
  EXPECT_EQ(in(0x3cc), 0x67u);
  out(0x3d4, 0x0e0f, 2);
  EXPECT_EQ(in(0x3d4), 0x0fu);
  EXPECT_EQ(in(0x3d5), 0x0eu);
}

}  // namespace
}  // namespace trapline::machine
