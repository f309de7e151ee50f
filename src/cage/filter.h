// What the seccomp filter of a cage lets through: the stub's own calls, each from its own instruction, with its own
// arguments. All else, from whatever address and by whatever entry, becomes a SIGSYS, which the stub hands over: that is
// how a guest's own SYSCALL is noticed. Linux Documentation/userspace-api/seccomp_filter.rst.
#pragma once

#include <linux/filter.h>

#include <vector>

#include "base/types.h"

namespace trapline::cage {

// The guard of calls that change mappings. The kernel takes mmap's `flags` and `fd` for 32 bits wide and the other calls
// have no such arguments at all; the filter sees all 64. Who does not know the upper halves cannot map.
struct Nonce {
  u32 flags, fd;
  u64 with_flags(u64 value) const { return value | u64{flags} << 32; }
  u64 with_fd(u64 value) const { return (value & 0xffffffff) | u64{fd} << 32; }
};

// The defences, each of which a test can leave out to show what it is for. A VM has all.
struct Defences {
  bool calls = true;      // the guest's system calls are signals
  bool arguments = true;  // calls of the stub have its arguments
  bool nonce = true;      // orders have the nonce
  bool tokens = true;     // what is said of orders is proved
};

// For a stub at `stub`. Any thread.
std::vector<sock_filter> filter(u64 stub, const Nonce& nonce, const Defences& defences = {});

}  // namespace trapline::cage
