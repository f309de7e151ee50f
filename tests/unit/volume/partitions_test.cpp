#include "volume/partitions.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "memory_disk.h"

namespace trapline::volume {
namespace {

using test::MemoryDisk;

constexpr u64 kDisk = 4 * MiB, kSectors = kDisk / 512;

TEST(Partitions, OfAGpt) {
  MemoryDisk disk{kDisk};
  disk.mbr(0, 0, 0xee, 1, kSectors - 1);
  disk.gpt_header(512, 2, 128);
  disk.gpt_entry(1024, 2048, 4095, 0x10);
  disk.gpt_entry(1024 + 14 * 128, 64, 127, 0x40);  // as Debian's: the 15th is the ESP, before the first
  const auto found = partitions_of(disk);
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].number, 1u);
  EXPECT_EQ(found[0].first, 2048u * 512);
  EXPECT_EQ(found[0].bytes, 2048u * 512);
  EXPECT_EQ(found[0].partuuid, "13121110-1514-1716-1819-1a1b1c1d1e1f");
  EXPECT_EQ(found[1].number, 15u);
  EXPECT_TRUE(looks_like_a_disk(disk));
}

TEST(Partitions, OfTheSpareGptAndOfLargeSectors) {
  MemoryDisk spare{kDisk};
  spare.gpt_header(kDisk - 512, kSectors - 33, 4);
  spare.gpt_entry((kSectors - 33) * 512, 100, 199, 1);
  ASSERT_EQ(partitions_of(spare).size(), 1u);
  EXPECT_EQ(partitions_of(spare)[0].first, 100u * 512);
  MemoryDisk large{kDisk};
  large.gpt_header(4096, 2, 4);
  large.gpt_entry(8192, 100, 199, 1);
  ASSERT_EQ(partitions_of(large).size(), 1u);
  EXPECT_EQ(partitions_of(large)[0].first, 100u * 4096);
}

TEST(Partitions, OfAnMbrWithLogicalOnes) {
  MemoryDisk disk{kDisk};
  disk.put<u32>(440, 0xdeadbeef);
  disk.mbr(0, 0, 0x83, 64, 100);
  disk.mbr(0, 2, 0x05, 1000, 3000);
  disk.mbr(1000, 0, 0x83, 8, 50);
  disk.mbr(1000, 1, 0x05, 500, 100);
  disk.mbr(1500, 0, 0x83, 8, 60);
  const auto found = partitions_of(disk);
  ASSERT_EQ(found.size(), 3u);
  EXPECT_EQ(found[0].partuuid, "deadbeef-01");
  EXPECT_EQ(found[1].number, 5u);
  EXPECT_EQ(found[1].first, 1008u * 512);
  EXPECT_EQ(found[2].partuuid, "deadbeef-06");
  EXPECT_EQ(found[2].first, 1508u * 512);
  EXPECT_TRUE(looks_like_a_disk(disk));
}

TEST(Partitions, OfHostileTablesAreInTheDisk) {
  MemoryDisk ring{kDisk};
  ring.mbr(0, 0, 0x05, 1000, 3000);
  ring.mbr(1000, 0, 0x83, 8, 50);
  ring.mbr(1000, 1, 0x05, 0, 100);  // itself
  EXPECT_EQ(partitions_of(ring).size(), 1u);

  MemoryDisk huge{kDisk};
  huge.mbr(0, 0, 0x83, 0xffffffff, 0xffffffff);
  huge.mbr(0, 1, 0x83, 100, 0xffffffff);
  const auto cut = partitions_of(huge);
  ASSERT_EQ(cut.size(), 1u);
  EXPECT_EQ(cut[0].bytes, kDisk - 100 * 512);

  MemoryDisk gpt{kDisk};
  gpt.gpt_header(512, 2, 0xffffffff, 128);
  gpt.gpt_entry(1024, 0, ~u64{0}, 1);
  gpt.gpt_entry(1024 + 128, ~u64{0}, ~u64{0}, 2);
  gpt.gpt_entry(1024 + 256, 200, 100, 3);
  gpt.gpt_entry(1024 + 384, 100, u64{1} << 60, 4);
  for (const Partition& p : partitions_of(gpt)) {
    EXPECT_LT(p.first, kDisk);
    EXPECT_LE(p.bytes, kDisk - p.first);
  }
  for (const auto& [table, size] : {std::pair<u64, u32>{~u64{0}, 128}, {2, 0}, {2, 1u << 31}, {kSectors - 1, 128}}) {
    MemoryDisk bad{kDisk};
    bad.gpt_header(512, table, 128, size);
    EXPECT_EQ(partitions_of(bad).front().number, 0u) << table;
  }
  EXPECT_EQ(partitions_of(MemoryDisk{0}).front().bytes, 0u);
  EXPECT_FALSE(looks_like_a_disk(MemoryDisk{0}));
}

TEST(Partitions, KernelsAreNoDisks) {
  MemoryDisk bzimage{kDisk};
  bzimage.mbr(0, 0, 0x83, 64, 100);
  EXPECT_TRUE(looks_like_a_disk(bzimage));
  bzimage.text(0x202, "HdrS");
  EXPECT_FALSE(looks_like_a_disk(bzimage));
  MemoryDisk sector{kDisk};  // 55 AA alone is any boot sector
  sector.put<u16>(510, 0xaa55);
  EXPECT_FALSE(looks_like_a_disk(sector));
}

}  // namespace
}  // namespace trapline::volume
