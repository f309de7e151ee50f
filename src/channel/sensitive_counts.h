// How often each row of the instruction table was executed, and by which way it went: memory that the core writes while
// `trapline compare` counts, one table for each vCPU. Who reads it treats it as hostile: numbers, whatever they are.
#pragma once

#include "base/types.h"

namespace trapline::channel {

// By which way a sensitive instruction went.
enum class Way : u8 {
  interpreted,  // decoded into a block of the interpreter, whose handler or semantic did it
  inlined,      // host code in a translated block: virtual state, no call
  called,       // translated code called its semantic
  trapped,      // run on the CPU in a cage, where it trapped (or entered the host's kernel), or a trap instead of it
  count
};

struct SensitiveCounts {
  static constexpr unsigned kRows = 256, kRings = 2, kWays = static_cast<unsigned>(Way::count);
  // [isa::RowId][0: ring 0, 1: ring 3][Way]. An instruction that faults, or is repeated, counts each time.
  u64 times[kRows][kRings][kWays];
};

}  // namespace trapline::channel
