// From one unit of time to another, on the way of every port that tells the time: without a 128-bit division, which is
// a call of some 20 ns.
#pragma once

#include "base/types.h"

namespace trapline {

// value * to / from, rounded down, modulo 2^64: exact as long as from * to < 2^64.
constexpr u64 scaled(u64 value, u64 to, u64 from) { return value / from * to + value % from * to / from; }

}  // namespace trapline
