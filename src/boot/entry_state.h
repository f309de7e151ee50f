// The boot vCPU's registers at a kernel's entry point.
#pragma once

#include "boot/loader.h"
#include "cpu/vcpu.h"

namespace trapline::boot::loader {

// Selectors of the boot GDT, which lies in guest memory.
struct Selectors {
  u16 code, data;
};
// The Linux protocol fixes its own (__BOOT_CS, __BOOT_DS).
inline constexpr Selectors kLinuxSelectors{0x10, 0x18};
// Multiboot leaves them open. GRUB legacy and QEMU use these, and kernels that load no GDT of their own rely on them.
inline constexpr Selectors kMultibootSelectors{0x08, 0x10};

// Protected mode, paging off, flat 4 GiB segments, interrupts off, general registers zero. False: no room for the GDT.
[[nodiscard]] bool enter_protected(LoadContext& c, u64 rip, Selectors selectors);
// 64-bit mode over identity page tables for the first 4 GiB. False: no room for GDT and tables.
[[nodiscard]] bool enter_long(LoadContext& c, u64 rip, Selectors selectors);

}  // namespace trapline::boot::loader
