// What the host kernel does with split locks (cpu/split_lock.h).
#pragma once

namespace trapline::monitor {

// Does the host raise SIGBUS for a locked access across a cache line? Asked of the host once, by trying in a child
// where /proc/cpuinfo names the feature at all: elsewhere such an access may cost 10 ms and a line in the kernel's log.
bool host_traps_split_locks();

}  // namespace trapline::monitor
