// ACPI tables for the machine in machine/chipset.h: RSDP, RSDT/XSDT, FADT, FACS, MADT, DSDT (PCI root, S5, COM1, RTC).
// ACPI 6.4.
#pragma once

#include "base/guest_memory.h"
#include "base/types.h"

namespace trapline::machine {

inline constexpr u64 kAcpiTablesStart = 0xe0000,
                     kAcpiTablesEnd = 0x100000;  // found by the legacy scan; reserved in the memory map

// Writes the tables into guest memory below 1 MiB. Returns the RSDP's address.
Gpa write_acpi_tables(GuestMemory& ram, u32 cpus);

}  // namespace trapline::machine
