#include "cpu/cpuid_caches.h"

#include <algorithm>
#include <bit>

namespace trapline::cpu {

namespace {

constexpr u32 kLegacyUnit = 512 * 1024;  // of 8000_0006 EDX (APM Vol. 3, E.4.5)
constexpr u32 kLegacySharers = 16;       // where the host does not tell them

// SDM Vol. 2A, CPUID leaf 4; APM Vol. 3, E.4.16 (8000_001D): the same layout.
u32 level_of(const CpuidRegs& r) { return r.eax >> 5 & 7; }
u64 bytes_of(const CpuidRegs& r) {
  return u64{(r.ebx >> 22) + 1} * ((r.ebx >> 12 & 0x3ff) + 1) * ((r.ebx & 0xfff) + 1) * (u64{r.ecx} + 1);
}

// Bits of an APIC id in which those who share one cache differ. `sharers`: on the host.
u32 sharing_bits(u32 package_bits, u32 sharers) { return std::min<u32>(package_bits, std::bit_width(sharers - 1)); }

struct LastLevel {
  u64 bytes = 0;  // of one of them
  u32 bits = 0;
};

// EDX with the sum of all.
u32 legacy(u32 host_edx, LastLevel one, u32 cpus, u32 package_bits) {
  if (one.bytes == 0) {
    one = {u64{host_edx >> 18} * kLegacyUnit, sharing_bits(package_bits, kLegacySharers)};
    while (one.bytes > largest_last_level(cpus)) one.bytes /= 2;
  }
  const u64 number = (u64{cpus} + (1u << one.bits) - 1) >> one.bits;
  return (host_edx & 0x3ffff) | static_cast<u32>(std::min<u64>(number * one.bytes / kLegacyUnit, 0x3fff)) << 18;
}

}  // namespace

GuestCaches guest_caches(const HostCpu& host, bool intel, u32 cpus, u32 package_bits) {
  GuestCaches out{intel ? 4 : 0x8000001d, {}, 0};
  const u32 max_extended = host.cpuid(0x80000000, 0).eax;
  const bool told = (intel ? host.cpuid(0, 0).eax : max_extended) >= out.leaf;
  LastLevel last;
  for (u32 i = 0; told && i < 8; i++) {
    CpuidRegs r = host.cpuid(out.leaf, i);
    if ((r.eax & 0x1f) == 0) break;
    const u32 bits = level_of(r) >= 3 ? sharing_bits(package_bits, (r.eax >> 14 & 0xfff) + 1) : 0;
    r.eax = (r.eax & 0x3fff) | ((1u << bits) - 1) << 14;
    if (intel) r.eax |= std::min((1u << package_bits) - 1, 63u) << 26;
    if (level_of(r) >= 3) {
      while (bytes_of(r) > largest_last_level(cpus) && r.ecx > 0) r.ecx = (r.ecx + 1) / 2 - 1;  // fewer sets
      last = {bytes_of(r), bits};
    }
    out.levels.push_back(r);
  }
  if (!intel && max_extended >= 0x80000006)
    out.legacy_edx = legacy(host.cpuid(0x80000006, 0).edx, last, cpus, package_bits);
  return out;
}

}  // namespace trapline::cpu
