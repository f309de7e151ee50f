// The DSDT's definition block (without the table header): what ACPI must be told about this machine because it cannot
// be probed.
#pragma once

#include "acpi/aml.h"
#include "acpi/tables.h"

namespace trapline::acpi {

aml::Bytes dsdt_body(const Machine& machine);

}  // namespace trapline::acpi
