#include "cpu/cpuid_caches.h"

#include <gtest/gtest.h>

#include <bit>

namespace trapline::cpu {
namespace {

struct Cache {
  u32 level, ways, sets, sharers;
};

CpuidRegs encode(const Cache& c) {
  return {(c.sharers - 1) << 14 | c.level << 5 | 3, (c.ways - 1) << 22 | 63, c.sets - 1, 0};
}
u64 bytes(const CpuidRegs& r) { return u64{(r.ebx >> 22) + 1} * 64 * (r.ecx + 1); }
u32 sharers(const CpuidRegs& r) { return (r.eax >> 14 & 0xfff) + 1; }

HostCpu host(bool amd, Cache last, u32 legacy_units = 0) {
  HostCpu h;
  h.cpuid = [=](u32 leaf, u32 subleaf) -> CpuidRegs {
    if (leaf == 0) return {0x20, 0, 0, 0};
    if (leaf == 0x80000000) return {0x80000028, 0, 0, 0};
    if (leaf == 0x80000006) return {0, 0, 0x04006140, legacy_units << 18 | 0x9140};
    if (last.level == 0 || leaf != (amd ? 0x8000001du : 4u) || subleaf > 1) return {};
    return subleaf == 0 ? encode({2, 16, 1024, 2}) : encode(last);
  };
  return h;
}

u32 bits(u32 cpus) { return cpus <= 1 ? 0 : static_cast<u32>(std::bit_width(cpus - 1)); }
GuestCaches of(const HostCpu& h, bool amd, u32 cpus) { return guest_caches(h, !amd, cpus, bits(cpus)); }

TEST(GuestCaches, AreSharedByWhoeverThereIs) {
  const HostCpu zen = host(true, {3, 16, 32768, 16});  // 32 MiB for 16 threads
  for (const u32 cpus : {1u, 2u, 3u, 8u, 16u, 64u}) {
    const GuestCaches c = of(zen, true, cpus);
    ASSERT_EQ(c.levels.size(), 2u);
    EXPECT_EQ(sharers(c.levels[0]), 1u) << "the second level";
    EXPECT_EQ(bytes(c.levels[0]), MiB);
    EXPECT_EQ(sharers(c.levels[1]), std::min(1u << bits(cpus), 16u)) << cpus;
    EXPECT_LE(bytes(c.levels[1]), largest_last_level(cpus));
    // Both of AMD's leaves tell the same.
    const u64 number = (cpus + sharers(c.levels[1]) - 1) / sharers(c.levels[1]);
    EXPECT_EQ(u64{c.legacy_edx >> 18} * 512 * 1024, number * bytes(c.levels[1])) << cpus;
    EXPECT_EQ(c.legacy_edx & 0x3ffff, 0x9140u);
  }
  EXPECT_EQ(bytes(of(zen, true, 1).levels[1]), 16 * MiB);
  EXPECT_EQ(bytes(of(zen, true, 4).levels[1]), 32 * MiB);
}

TEST(GuestCaches, ALargeServersIsCutToWhatSoManyVcpusMakePlausible) {
  const HostCpu server = host(false, {3, 16, 516096, 256});  // 504 MiB, as Granite Rapids
  EXPECT_EQ(bytes(of(server, false, 1).levels[1]), 504 * MiB / 32);
  EXPECT_EQ(bytes(of(server, false, 64).levels[1]), 504 * MiB / 2);
  EXPECT_EQ(sharers(of(server, false, 64).levels[1]), 64u);
  EXPECT_EQ(of(server, false, 4).levels[1].eax >> 26, 3u) << "cores in the package";
}

// A hypervisor under us that has taken the newer leaf away, and leaves a whole socket's size in the old one.
TEST(GuestCaches, OfTheOldLeafAlone) {
  const HostCpu bare = host(true, {}, 0x3f8);  // 508 MiB
  const GuestCaches one = of(bare, true, 1), many = of(bare, true, 32);
  EXPECT_TRUE(one.levels.empty());
  EXPECT_LE(u64{one.legacy_edx >> 18} * 512 * 1024, largest_last_level(1));
  EXPECT_GE(u64{one.legacy_edx >> 18} * 512 * 1024, largest_last_level(1) / 2);
  EXPECT_GT(many.legacy_edx >> 18, one.legacy_edx >> 18);
}

}  // namespace
}  // namespace trapline::cpu
