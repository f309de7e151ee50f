// What is left where a BIOS would be: a few words of its data area, and services that all fail, so that a kernel which
// goes to real mode and asks gets an answer. There is no firmware besides.
#pragma once

#include "base/guest_memory.h"

namespace trapline::boot {

// The interrupt table at 0, the data area at 400, and code in the last 4 KiB below 1 MiB (kFirmwareCode).
void write_firmware(GuestMemory& ram);

inline constexpr Gpa kFirmwareCode{0xff000};

}  // namespace trapline::boot
