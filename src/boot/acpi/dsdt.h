// The DSDT's definition block (without the table header): what ACPI must be told about this machine because it cannot
// be probed.
#pragma once

#include "base/types.h"
#include "boot/acpi/aml.h"

namespace trapline::boot {

aml::Bytes dsdt_body(u32 cpus);

}  // namespace trapline::boot
