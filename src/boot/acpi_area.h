// Where ACPI tables are when no firmware places them.
#pragma once

#include "base/guest_memory.h"
#include "base/types.h"

namespace trapline::boot {

// Found by the legacy scan. Behind them lie the MP table and the firmware's code (mp_table.h, boot/firmware.h); all of
// E0000-FFFFF is reserved in the memory map.
inline constexpr Gpa kAcpiTablesStart{0xe0000}, kAcpiTablesEnd{0xf0000}, kBiosAreaEnd{0x100000};

// Writes the tables into guest memory below 1 MiB. Returns the RSDP's address. `virtio_mmio`: devices of that kind.
Gpa write_acpi_tables(GuestMemory& ram, u32 cpus, u32 virtio_mmio = 0);

}  // namespace trapline::boot
