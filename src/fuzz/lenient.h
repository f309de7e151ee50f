// The documented table of what hosts do as they please: effects of an instruction that faulted, where the manual leaves
// them open or processors differ. What is listed here is not compared; everything else is.
#pragma once

#include "fuzz/program.h"

namespace trapline::fuzz {

// For the instruction at which the host stopped `program`, laid out in `slot`.
Lenient lenient_at(const Program& program, std::size_t slot, const Outcome& native);

}  // namespace trapline::fuzz
