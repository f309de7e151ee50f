// Kernel and initrd in a disk, where distributions put them.
#pragma once

#include <string>

#include "base/result.h"
#include "volume/ext.h"

namespace trapline::volume {

// Paths, as --kernel image:PATH has them; empty: looked for (for an initrd: the kernel's, if there is one).
struct Wanted {
  std::string kernel, initrd;
  bool kernel_too = true, initrd_too = true;  // false: that one comes from elsewhere
};

struct BootFiles {
  std::string kernel, initrd;  // where they were
  std::string root;            // for root=: PARTUUID=... or /dev/vda; empty: no root was seen
  unsigned root_number = 0;    // its partition, 0: the whole disk
};

inline constexpr u64 kLargestKernel = 512 * MiB, kLargestInitrd = GiB;

// Finds them and hands their bytes over. Error: one line.
Result<BootFiles, std::string> read_boot_files(const Source& disk, const Wanted& wanted, const Ext::Taker& kernel,
                                               const Ext::Taker& initrd);

}  // namespace trapline::volume
