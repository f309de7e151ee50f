// The caches that a guest sees: the host's, for as many vCPUs as there are. First and second level belong to one vCPU
// (one thread per core). A last level is shared by as many vCPUs as it has threads on the host at most, and is no
// larger than so many vCPUs make plausible: guests divide it by its sharers, and size buffers by it.
#pragma once

#include <vector>

#include "cpu/cpuid.h"

namespace trapline::cpu {

struct GuestCaches {
  u32 leaf;                       // 4, or AMD's 8000001DH
  std::vector<CpuidRegs> levels;  // its subleaves; none: the host has no such leaf
  u32 legacy_edx;                 // AMD's 80000006H: all last-level caches together, in its old unit
};

GuestCaches guest_caches(const HostCpu& host, bool intel, u32 cpus, u32 package_bits);

// In bytes.
constexpr u64 largest_last_level(u32 cpus) { return 16 * MiB + cpus * 4 * MiB; }

}  // namespace trapline::cpu
