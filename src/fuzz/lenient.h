// The documented table of what hosts do as they please: effects of an instruction that faulted, where the manual leaves
// them open or processors differ. What is listed here is not compared; everything else is.
#pragma once

#include "fuzz/program.h"

namespace trapline::fuzz {

// For the instruction at which the host stopped `program`, laid out in `slot`.
Lenient lenient_at(const Program& program, std::size_t slot, const Outcome& native);

// Did the engine stop, by #GP, where the program loads MXCSR bits that the host has and a guest is not offered
// (AMD's misaligned mode, APM Vol. 1 4.2.2)? Then the host went on, and there is nothing to compare.
bool loads_hidden_mxcsr(const Program& program, std::size_t slot, const Outcome& engine, const Extent& extent);

}  // namespace trapline::fuzz
