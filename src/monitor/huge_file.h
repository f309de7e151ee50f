// Files in memory that have huge pages. A memfd follows /sys/kernel/mm/transparent_hugepage/shmem_enabled, which is
// "never" as Linux comes; a tmpfs may be mounted with huge=always by whoever has a user and a mount namespace of his own
// (tmpfs(5)). A first touch then costs a fault in 2 MiB and not in 4 KiB, and the host's TLB reaches farther. The price
// is coarser use: who touches a byte has taken 2 MiB.
#pragma once

#include <initializer_list>
#include <vector>

#include "base/types.h"
#include "monitor/files.h"

namespace trapline::monitor {

struct HugeFile {
  const char* name;  // as /proc shows it
  u64 bytes;
};

// Files of zeroes that are in no folder: to be mapped shared at multiples of 2 MiB, executable too. They have no seals:
// whoever gets a descriptor must be kept from ftruncate() otherwise. Empty: the host allows no namespace or has no huge
// pages; take memfds. Any thread may call it; it starts a process and waits for its end.
std::vector<Fd> make_huge_files(std::initializer_list<HugeFile> wanted);

// Does the host have so much memory to spare that 2 MiB here and there of `bytes` do not matter? What it calls available
// and, in a container, its limit (cgroup v2 or v1) decide.
bool roomy_for(u64 bytes);

}  // namespace trapline::monitor
