#include "boot/mp_table.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <string>

#include "boot/firmware.h"
#include "devices/board_map.h"

namespace trapline::boot {
namespace {

namespace map = devices::map;

struct MpTableTest : testing::Test {
  GuestMemory ram = std::move(*GuestMemory::anonymous(16 * MiB));
  u64 get(u64 at, unsigned bytes) const {
    u64 value = 0;
    std::memcpy(&value, ram.host(Gpa{at}), bytes);
    return value;
  }
  std::string text(u64 at, unsigned bytes) const { return {reinterpret_cast<const char*>(ram.host(Gpa{at})), bytes}; }
  u8 sum(u64 at, u64 bytes) const {
    u8 total = 0;
    for (u64 i = 0; i < bytes; i++) total = static_cast<u8>(total + get(at + i, 1));
    return total;
  }
};

// As kernels search: 16-byte steps through F0000-FFFFF for the signature and a sum of 0.
TEST_F(MpTableTest, IsFoundByTheScanAndWhole) {
  write_mp_table(ram, 4);
  ASSERT_EQ(text(kMpTable.raw, 4), "_MP_");
  EXPECT_EQ(sum(kMpTable.raw, 16), 0);
  EXPECT_EQ(get(kMpTable.raw + 9, 1), 4u) << "version 1.4";
  EXPECT_EQ(get(kMpTable.raw + 12, 1), 0u) << "no IMCR";
  const u64 table = get(kMpTable.raw + 4, 4), length = get(table + 4, 2);
  EXPECT_EQ(text(table, 4), "PCMP");
  EXPECT_EQ(sum(table, length), 0);
  EXPECT_LE(table + length, kFirmwareCode.raw);
  EXPECT_EQ(get(table + 36, 4), map::lapic.raw);
}

TEST_F(MpTableTest, SaysWhatTheMadtSays) {
  write_mp_table(ram, 3);
  const u64 table = get(kMpTable.raw + 4, 4);
  std::map<u64, unsigned> kinds;
  std::map<u64, u64> isa_pins;
  u64 at = table + 44, last = 0;
  for (u64 i = 0; i < get(table + 34, 2); i++) {
    const u64 kind = get(at, 1);
    EXPECT_GE(kind, last) << "in ascending order";
    last = kind;
    if (kind == 0) {
      EXPECT_EQ(get(at + 1, 1), kinds[0]);
      EXPECT_EQ(get(at + 3, 1), kinds[0] == 0 ? 3u : 1u) << "enabled; the first one boots";
    }
    if (kind == 2) {
      EXPECT_EQ(get(at + 4, 4), map::ioapic.raw);
    }
    if (kind == 3 && get(at + 4, 1) == 1) isa_pins[get(at + 5, 1)] = get(at + 7, 1);
    if (kind == 3 && get(at + 4, 1) == 0) {
      const u64 source = get(at + 5, 1);
      EXPECT_EQ(get(at + 7, 1), devices::pci_intx_gsi(static_cast<u32>(source >> 2), source & 3));
    }
    kinds[kind]++;
    at += kind == 0 ? 20 : 8;
  }
  EXPECT_EQ(at, table + get(table + 4, 2));
  EXPECT_EQ(kinds[0], 3u);
  EXPECT_EQ(kinds[2], 1u);
  EXPECT_EQ(kinds[4], 2u);
  ASSERT_EQ(isa_pins.size(), 15u);
  for (const auto& [irq, pin] : isa_pins) EXPECT_EQ(pin, irq == 0 ? 2 : irq);
}

TEST_F(MpTableTest, HasNoPlaceForIdsOfMoreThanEightBits) {
  write_mp_table(ram, 255);
  EXPECT_EQ(get(kMpTable.raw, 4), 0u);
}

TEST_F(MpTableTest, TheFirmwareAnswersEveryVector) {
  write_firmware(ram);
  for (unsigned vector = 0; vector < 256; vector++) {
    const u64 target = get(4 * vector + 2, 2) * 16 + get(4 * vector, 2);
    EXPECT_GE(target, kFirmwareCode.raw) << vector;
    EXPECT_NE(get(target, 1), 0u) << vector;
  }
  EXPECT_EQ(get(0x413, 2), 639u);
  EXPECT_EQ(get(0xffff0, 1), 0xbau);
}

}  // namespace
}  // namespace trapline::boot
