// The domain builder: puts a kernel where it expects itself as a Xen PV guest, with the first page tables, the
// list of its frames and the start info page (xen/xen.h, "struct start_info"). Linear addresses from VIRT_BASE on, which
// are pseudo-physical frames from 0 on:
//
//   kernel | initrd, unless it is named by frame | p2m list, unless it has a place of its own | start info |
//   store page | console page | page tables | boot stack | at least 512 KiB, to the next 4 MiB
//
// Behind that, unmapped: the p2m list with its page tables, the initrd.
#pragma once

#include "boot/boot.h"
#include "para/xen/domain.h"

namespace trapline::boot {

// Error: one line that names the image and the remedy. On success vCPU 0 is ready to run as `domain`'s.
Result<void, std::string> load_xen(GuestMemory& ram, cpu::Vcpu& boot_cpu, para::xen::Domain& domain,
                                   const BootRequest& request);

}  // namespace trapline::boot
