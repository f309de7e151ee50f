// Whether a page of guest code may run on the CPU as it is: looks at every byte offset for what must not.
#pragma once

#include <span>

#include "base/types.h"

namespace trapline::engine::patch {

// What this host executes in ring 3 without a trap and with another result than the guest's CPU would have; asked once.
struct HostLacks {
  bool cpuid_faulting = false;  // CPUID shows the host's CPU
  bool xcr0_same = false;       // XGETBV shows the guest's XCR0
};

// True: nothing of it is there. `code`: a page, or some bytes across the border of two.
bool may_run_directly(std::span<const u8> code, const HostLacks& host);

}  // namespace trapline::engine::patch
