// The MP configuration table (Intel MultiProcessor Specification 1.4, chapter 4), for kernels that know no ACPI. It
// says what the MADT says: the same processors, IOAPIC and interrupt wiring.
#pragma once

#include "base/guest_memory.h"
#include "base/types.h"

namespace trapline::boot {

inline constexpr Gpa kMpTable{0xf0000};  // where the scan of the BIOS area (F0000-FFFFF) begins

// Writes the floating pointer structure at kMpTable and the table behind it. `cpus` up to 254, as ids have 8 bits: with
// more there is no table.
void write_mp_table(GuestMemory& ram, u32 cpus);

}  // namespace trapline::boot
