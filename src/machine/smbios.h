// What the machine says of itself by SMBIOS 2.8 (DMTF DSP0134): for a firmware, which places it.
#pragma once

#include <vector>

#include "base/types.h"
#include "machine/config.h"

namespace trapline::machine {

struct Smbios {
  std::vector<u8> anchor, tables;  // the firmware fills in where the tables are, and the anchor's checksums
};
Smbios make_smbios(const Config& config);

}  // namespace trapline::machine
