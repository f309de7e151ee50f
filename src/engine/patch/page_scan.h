// Whether a page of guest code may run on the CPU, and what must be replaced first. docs/cages.md.
#pragma once

#include <span>
#include <vector>

#include "base/types.h"
#include "isa/vendor.h"

namespace trapline::engine::patch {

// What this host executes in ring 3 without a trap and with another result than the guest's CPU would have.
struct HostLacks {
  bool xcr0_same = false;  // XGETBV shows the guest's XCR0
  bool cpuid_faults = false;
  bool aux_offered = true;  // RDTSCP or RDPID: the guest's programs may use them, and they show the host's CPU number
  bool repeatable = false;  // what it executes must have the same result the next time: no time, no random
                            // numbers, nothing that shows which registers the CPU takes for unused
  isa::Vendor vendor = isa::Vendor::intel;
};

struct PageScan {
  bool refused = false;    // holds, at some offset, what must not run in any case
  std::vector<u16> sites;  // offsets of instructions that show the host: to be replaced by a trap
};

PageScan scan_page(std::span<const u8, kPageSize> page, const HostLacks& host);
// Nothing that must not run lies across the border of two pages: `bytes` from both sides.
bool border_runs(std::span<const u8> bytes);

}  // namespace trapline::engine::patch
