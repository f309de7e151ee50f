// What an instruction changed, between a stage and what was seen.
#pragma once

#include <string>

#include "isa/verify/run.h"

namespace trapline::isa::verify {

// A register but RSP, an arithmetic flag, a byte of scratch, or something pushed.
bool changed(const Stage& stage, const Observation& seen);

// "rax 5a5a5a5a -> 33; [rdi] = 7f 00 00 00 ..."; empty where nothing changed.
std::string changes(const Stage& stage, const Observation& seen);

// "cpuid"
std::string listing(const Stage& stage);

}  // namespace trapline::isa::verify
