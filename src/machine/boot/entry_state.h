// The boot vCPU's registers at a kernel's entry point.
#pragma once

#include "cpu/vcpu.h"
#include "machine/boot/loader.h"

namespace trapline::machine::loader {

// Selectors of the boot GDT, as the Linux protocol fixes them (__BOOT_CS, __BOOT_DS).
inline constexpr u16 kBootCs = 0x10, kBootDs = 0x18;

// Protected mode, paging off, flat 4 GiB segments, interrupts off, general registers zero. False: no room for the GDT.
[[nodiscard]] bool enter_protected(Context& c, u64 rip);
// 64-bit mode over identity page tables for the first 4 GiB. False: no room for GDT and tables.
[[nodiscard]] bool enter_long(Context& c, u64 rip);

}  // namespace trapline::machine::loader
