#include "base/guest_memory.h"

#include <gtest/gtest.h>

namespace trapline {
namespace {

TEST(GuestMemory, HasTheHolesOfAPc) {
  const GuestMemory ram = std::move(*GuestMemory::anonymous(16 * MiB));
  for (const u64 in : {u64{0}, u64{0x9ffff}, u64{0xc0000}, 16 * MiB - 1}) EXPECT_TRUE(ram.is_ram(Gpa{in})) << in;
  for (const u64 out : {u64{0xa0000}, u64{0xb8000}, u64{0xbffff}, 16 * MiB, u64{0xfffffff0}}) {
    EXPECT_FALSE(ram.is_ram(Gpa{out})) << out;
    EXPECT_FALSE(ram.is_memory(Gpa{out})) << out;
    EXPECT_FALSE(ram.bytes(Gpa{out}, 1)) << out;
  }
  EXPECT_EQ(ram.frames(), 16 * MiB / kPageSize);
}

TEST(GuestMemory, ARomEndsAtFourGigabytesAndIsNoRam) {
  const GuestMemory ram = std::move(*GuestMemory::map(-1, 16 * MiB, {.rom = 256 * KiB}));
  EXPECT_EQ(ram.rom().size(), 256 * KiB);
  EXPECT_EQ(ram.rom().data(), ram.host(Gpa{0xfffc0000}));
  for (const u64 in : {u64{0xfffc0000}, u64{0xffffffff}}) {
    EXPECT_TRUE(ram.is_rom(Gpa{in})) << in;
    EXPECT_TRUE(ram.is_memory(Gpa{in})) << in;
    EXPECT_FALSE(ram.is_ram(Gpa{in})) << in;
    EXPECT_FALSE(ram.bytes(Gpa{in}, 1)) << in;
  }
  EXPECT_FALSE(ram.is_memory(Gpa{0xfffbffff}));
  EXPECT_FALSE(ram.is_memory(Gpa{4 * GiB}));
  EXPECT_EQ(ram.frames(), 4 * GiB / kPageSize);  // tables by frame reach it
  EXPECT_EQ(ram.frames(), GuestMemory::frames_of(16 * MiB, true));
  ram.rom()[0] = std::byte{1};  // it is there
}

TEST(GuestMemory, ATextScreenIsRam) {
  const GuestMemory ram = std::move(*GuestMemory::map(-1, 16 * MiB, {.text_screen = true}));
  EXPECT_TRUE(ram.is_ram(Gpa{0xb8000}));
  EXPECT_TRUE(ram.is_ram(Gpa{0xbffff}));
  EXPECT_FALSE(ram.is_ram(Gpa{0xb7fff}));
  EXPECT_FALSE(ram.is_ram(Gpa{0xa0000}));
  EXPECT_TRUE(ram.bytes(Gpa{0xb8000}, 0x10000));
  EXPECT_FALSE(ram.bytes(Gpa{0x9f000}, 0x20000));
}

}  // namespace
}  // namespace trapline
