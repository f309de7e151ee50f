// Power-on with a firmware in ROM.
#pragma once

#include <string>

#include "base/guest_memory.h"
#include "base/result.h"
#include "boot/boot.h"

namespace trapline::boot {

// Puts the image into the guest's ROM, which is as large, and its last 128 KiB below 1 MiB, where the board's RAM
// shadows it. The vCPUs stay as RESET has left them: the first one fetches from FFFFFFF0. Error: one line.
Result<void, std::string> load_rom(GuestMemory& ram, Bytes image, const std::string& name);

}  // namespace trapline::boot
