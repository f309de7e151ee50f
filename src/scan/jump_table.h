// The targets of a switch statement's indirect jump, read from its table.
#pragma once

#include <optional>
#include <set>
#include <vector>

#include "scan/scan.h"

namespace trapline::scan {

struct JumpTargets {
  std::vector<u64> addresses;
  bool bounded = false;  // the code says how many there are
};

// The jump at `address` and the instructions right before it, as far as they are marked. Recognised: tables of 32-bit
// distances from the table (position-independent code) and of absolute addresses, with a bound by CMP or AND before;
// without one, entries count as long as they stay in the function and no other data that code refers to (`data`)
// begins. Nothing: not such a jump.
std::optional<JumpTargets> jump_targets(const Image& image, CodeMap& map, u64 address, const std::set<u64>& data);

}  // namespace trapline::scan
