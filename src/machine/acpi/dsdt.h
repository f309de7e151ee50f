// The DSDT's definition block (without the table header): what ACPI must be told about this machine because it cannot
// be probed.
#pragma once

#include "base/types.h"
#include "machine/acpi/aml.h"

namespace trapline::machine {

aml::Bytes dsdt_body(u32 cpus);

}  // namespace trapline::machine
