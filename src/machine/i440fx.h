// The functions of a 440FX board that firmware looks for: host bridge, ISA bridge (PIIX3), power management (PIIX4).
// They remember what is written; what it would do is fixed here (docs/firmware.md).
#pragma once

#include <memory>

#include "machine/pci.h"

namespace trapline::machine {

// Where PIIX functions are: behind all slots for virtio devices, each a device of its own.
inline constexpr unsigned kIsaBridgeSlot = 31, kPowerSlot = 30, kIdeSlot = 29;

// Device 0: Intel 440FX, the host bridge that every system knows and asks nothing of. For firmware it has the
// identity by which SeaBIOS knows QEMU's, and PAM registers that only remember: C0000-FFFFF is RAM always.
std::unique_ptr<PciDevice> make_host_bridge(bool firmware);
std::unique_ptr<PciDevice> make_isa_bridge();
// The registers are at map::acpi_pm whatever is written to PMBASE. System management mode counts as set up already.
std::unique_ptr<PciDevice> make_power_management();
// PIIX3 IDE in compatibility mode, its first channel enabled; `bus_master`: 16 ports that BAR 4 places.
std::unique_ptr<PciDevice> make_ide(devices::Device& bus_master);

}  // namespace trapline::machine
