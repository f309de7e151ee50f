// The one way from two host addresses to the disp32 between them.
#pragma once

#include "base/types.h"

namespace trapline::engine::emit {

// For an instruction that ends at `end` to reach `target`. Host code and what it names are placed within 2 GiB of each
// other (Region): a distance that does not fit is a mistake of ours.
[[nodiscard]] u32 displacement(u64 target, u64 end);

}  // namespace trapline::engine::emit
