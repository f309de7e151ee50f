// Kernel and initrd out of a disk image, read by a process of its own (src/volume/).
#pragma once

#include <string>

#include "base/result.h"
#include "machine/config.h"
#include "monitor/files.h"
#include "monitor/vm_error.h"

namespace trapline::monitor {

struct VolumeFiles {
  Fd kernel, initrd;                           // memory files; without descriptor: not asked for, or not there
  std::string kernel_path, initrd_path, root;  // where they were; for root=, may be empty
  std::string root_device;                     // the same, as Linux names it on its first disk
};

struct VolumeWish {
  bool kernel = true, initrd = true;
  std::string kernel_path, initrd_path;  // empty: looked for
};

// Of an image in any format that disks have. Errors are about the volume.
Result<VolumeFiles, VmError> read_volume(const machine::DiskConfig& disk, const VolumeWish& wish);

}  // namespace trapline::monitor
