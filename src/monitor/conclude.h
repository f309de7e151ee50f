// What to say at the end of a run, and its exit code.
#pragma once

#include <functional>
#include <string>

#include "channel/exit_codes.h"
#include "machine/config.h"
#include "monitor/core_process.h"
#include "monitor/machine_state.h"
#include "monitor/symbols.h"

namespace trapline::monitor {

struct Conclusion {
  int code = 0;
  std::string text;  // one line or a report; empty: nothing to say
};

struct EndedRun {
  const machine::Config& config;
  const MachineState& machine;
  const CoreProcess& core;
  int signal;  // the first that was to end it, or 0
  std::function<Symbols()> symbols;
};

Conclusion conclude(const EndedRun& run);

}  // namespace trapline::monitor
