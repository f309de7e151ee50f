#include "machine/pci.h"
#include "machine/i440fx.h"

#include <gtest/gtest.h>

#include "devices/board_ports.h"

namespace trapline::machine {
namespace {

struct Scratch final : devices::Device {
  const char* name() const override { return "scratch"; }
  u64 read(u64 offset, unsigned) override { return offset; }
  void write(u64, unsigned, u64) override {}
  void reset() override {}
};

struct Card final : PciDevice {
  Card() : PciDevice{{.vendor = 0x1af4, .device = 0x1042, .class_code = 0x018000}} {
    add_bar(0, BarKind::io, 64, registers);
    add_bar(1, BarKind::memory32, 4096, registers);
    add_bar(4, BarKind::memory64, 16384, registers);
    first = add_capability(0x09, 20);
    second = add_capability(0x11, 12);
    set_interrupt_pin(1);
  }
  Scratch registers;
  unsigned first = 0, second = 0;
};

struct PciTest : testing::Test {
  unsigned resets = 0;
  devices::ResetControl reset_control{[this] { resets++; }};
  PciBus bus{reset_control};
  PciTest() {
    EXPECT_TRUE(bus.plug(0, make_host_bridge(false)));
    EXPECT_TRUE(bus.plug(3, std::make_unique<Card>()));
    EXPECT_FALSE(bus.plug(3, std::make_unique<Card>()));
    EXPECT_FALSE(bus.plug(32, std::make_unique<Card>()));
  }
  static u32 at(unsigned slot, unsigned reg, unsigned b = 0, unsigned fn = 0) {
    return 1u << 31 | b << 16 | slot << 11 | fn << 8 | reg;
  }
  u32 get(u32 address, unsigned size = 4) {
    bus.write(0, 4, address & ~3u);
    const u64 ones = size == 4 ? 0xffffffff : (1u << 8 * size) - 1;
    return static_cast<u32>(bus.read(4 + (address & 3), size) & ones);
  }
  void put(u32 address, u32 value, unsigned size = 4) {
    bus.write(0, 4, address & ~3u);
    bus.write(4 + (address & 3), size, value);
  }
};

// Linux's pci_check_type1() and pci_sanity_check().
TEST_F(PciTest, LinuxFindsMechanism1) {
  bus.write(3, 1, 1);
  bus.write(0, 4, 0x80000000);
  EXPECT_EQ(bus.read(0, 4), 0x80000000u);
  EXPECT_EQ(get(at(0, 8)) >> 16, 0x0600u);
  EXPECT_EQ(get(at(0, 0)), 0x12378086u);
}

TEST_F(PciTest, EmptyPlacesReadOnes) {
  EXPECT_EQ(get(at(1, 0)), 0xffffffffu);
  EXPECT_EQ(get(at(0, 0, 1)), 0xffffffffu);
  EXPECT_EQ(get(at(0, 0, 0, 1)), 0xffffffffu);
  EXPECT_EQ(get(at(0, 0) & 0x7fffffff), 0xffffffffu);
  put(at(1, 4), 7);
}

TEST_F(PciTest, SubAccessesAndReadOnlyRegisters) {
  EXPECT_EQ(get(at(3, 2), 2), 0x1042u);
  EXPECT_EQ(get(at(3, 1), 1), 0x1au);
  put(at(3, 0), 0);
  EXPECT_EQ(get(at(3, 0)), 0x10421af4u);
  EXPECT_EQ(bus.read(5, 2) & 0xffff, 0xffffu);  // misaligned
  put(at(3, 0x3c), 0x020b, 2);
  EXPECT_EQ(get(at(3, 0x3c), 2), 0x010bu);
}

TEST_F(PciTest, BarsAreSizedMovedAndDecoded) {
  put(at(3, 0x10), ~0u), put(at(3, 0x14), ~0u), put(at(3, 0x20), ~0u), put(at(3, 0x24), ~0u), put(at(3, 0x18), ~0u);
  EXPECT_EQ(get(at(3, 0x10)), 0xffffffc1u);
  EXPECT_EQ(get(at(3, 0x14)), 0xfffff000u);
  EXPECT_EQ(get(at(3, 0x18)), 0u);
  EXPECT_EQ(get(at(3, 0x20)), 0xffffc004u);
  EXPECT_EQ(get(at(3, 0x24)), 0xffffffffu);
  put(at(3, 0x10), 0xc000), put(at(3, 0x14), 0xc0001000), put(at(3, 0x20), 0x00004000), put(at(3, 0x24), 0x10);
  EXPECT_FALSE(bus.find_io(0xc010, 1));
  put(at(3, 4), 3, 2);
  ASSERT_TRUE(bus.find_io(0xc010, 4));
  EXPECT_EQ(bus.find_io(0xc010, 4)->offset, 0x10u);
  EXPECT_FALSE(bus.find_io(0xc03e, 4));
  EXPECT_FALSE(bus.find_io(0xbfff, 1));
  ASSERT_TRUE(bus.find_memory(Gpa{0x10'0000'4008}, 8));
  EXPECT_EQ(bus.find_memory(Gpa{0x10'0000'4008}, 8)->offset, 8u);
  EXPECT_TRUE(bus.find_memory(Gpa{0xc0001fff}, 1));
  EXPECT_FALSE(bus.find_memory(Gpa{0xc0001fff}, 2));
  bus.reset();
  EXPECT_FALSE(bus.find_memory(Gpa{0xc0001000}, 1));
  EXPECT_EQ(get(at(3, 0x10)), 1u);
}

TEST_F(PciTest, CapabilitiesAreChained) {
  EXPECT_TRUE(get(at(3, 6), 2) & 0x10);
  const u32 first = get(at(3, 0x34), 1);
  EXPECT_EQ(first, 0x40u);
  EXPECT_EQ(get(at(3, first), 2), 0x5409u);
  EXPECT_EQ(get(at(3, 0x54), 2), 0x0011u);
}

TEST_F(PciTest, ResetControlLiesInside) {
  bus.write(0, 4, 0x80000600);  // a configuration address is no reset
  EXPECT_EQ(resets, 0u);
  bus.write(1, 1, 6);
  EXPECT_EQ(resets, 1u);
  EXPECT_EQ(bus.read(1, 1), 6u);
  EXPECT_EQ(bus.read(0, 4), 0x80000600u);
}

}  // namespace
}  // namespace trapline::machine
