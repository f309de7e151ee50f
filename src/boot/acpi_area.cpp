#include "boot/acpi_area.h"

#include <cstring>

#include "acpi/tables.h"
#include "base/invariant.h"

namespace trapline::boot {

// The RSDP comes first, where the scan of E0000-FFFFF begins.
Gpa write_acpi_tables(GuestMemory& ram, u32 cpus, u32 virtio_mmio) {
  constexpr Gpa kTables = kAcpiTablesStart.wrapping_add(64);
  acpi::Image image = acpi::build({.cpus = cpus, .virtio_mmio = virtio_mmio});
  acpi::place(image, kTables);
  INVARIANT(image.tables.size() <= kAcpiTablesEnd - kTables, "{} bytes of ACPI tables", image.tables.size());
  const auto area = ram.bytes(kAcpiTablesStart, kAcpiTablesEnd - kAcpiTablesStart);
  INVARIANT(area.has_value(), "no RAM for ACPI tables");
  std::memcpy(area->data(), image.rsdp.data(), image.rsdp.size());
  std::memcpy(area->data() + (kTables - kAcpiTablesStart), image.tables.data(), image.tables.size());
  return kAcpiTablesStart;
}

}  // namespace trapline::boot
