// How translated code is written for this host: which of two ways, where hosts differ. Asked once, at start; tests and
// bisection take ways away by TRAPLINE_DEBUG (docs/translator.md).
#pragma once

#include <string>

#include "base/types.h"
#include "engine/options.h"

namespace trapline::engine::hostcode {

struct HostWays {
  // GS has the base of the tables (WRGSBASE: FSGSBASE in CPUID and kernel). Else each look-up loads it from State: an
  // instruction more, beside the chain that the access waits for.
  bool gs_base = true;
  // PEXT in one instruction. Else page numbers are cut out by RORX and SHRX: Zen 1 and 2 run PEXT as microcode, for
  // tens to hundreds of cycles by the number of bits in its mask.
  bool pext = true;
};

// This host's, without what the options take away. Measured once; may be asked often.
HostWays host_ways(const DebugOptions& without = {});

// Cycles of the time stamp counter that a PEXT of a page number takes, measured once (a tenth of a millisecond); 0
// without BMI2.
double pext_cycles();

// What this host lacks for `--engine translate`, or empty.
std::string missing_on_host();
// The same of a host of which this is known. resume_by_hand() takes nothing off a shadow stack.
std::string missing_with(bool bmi2, bool shadow_stack);

}  // namespace trapline::engine::hostcode
