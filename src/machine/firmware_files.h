// The files by which firmware learns of the machine: ACPI tables with the commands that place them, SMBIOS, what to boot,
// where to talk (SeaBIOS's Runtime_config, QEMU's fw_cfg).
#pragma once

#include <span>

#include "devices/fw_cfg.h"
#include "machine/config.h"

namespace trapline::machine {

// vga_bios: the display's option ROM; empty without a display.
void fill_firmware_files(devices::FwCfg& fw, const Config& config, std::span<const u8> vga_bios);

}  // namespace trapline::machine
