// Where the board has what: the chipset answers there, ACPI and MP tables say so, and the core's LocalBus goes by it.
#pragma once

#include "base/addr.h"

namespace trapline::devices {

namespace map {
inline constexpr Gpa ioapic{0xfec00000}, lapic{0xfee00000}, hpet{0xfed00000};
inline constexpr Gpa pci_mmio_start{0xc0000000}, pci_mmio_end{0xfeb00000};
// Where SeaBIOS places the memory of PCI devices on a 440FX.
inline constexpr Gpa firmware_pci_start{0xc0000000}, firmware_pci_end{0xfec00000};
inline constexpr Gpa virtio_mmio{0xfeb00000};
inline constexpr u64 virtio_mmio_bytes = 0x200, virtio_mmio_most = 31;  // each; how many
inline constexpr u16 com1 = 0x3f8, debug_exit = 0xf4, fw_cfg = 0x510, acpi_pm = 0x600, pci_config = 0xcf8;
inline constexpr u32 sci_irq = 9;
}  // namespace map

// The global system interrupt (IOAPIC pin) of a PCI slot's INTA..INTD (`pin` 0..3).
constexpr u32 pci_intx_gsi(u32 slot, u32 pin) { return 16 + ((slot + pin) & 7); }

}  // namespace trapline::devices
