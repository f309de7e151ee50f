// One run of a VM, in a process of its own below this one, with its output, when each line of it came, and what it cost.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "channel/sensitive_counts.h"
#include "machine/config.h"
#include "monitor/run_figures.h"

namespace trapline::compare {

struct Line {
  double seconds = 0;  // after the start, when its end came
  std::string text;    // without the end of line
};

struct GuestRun {
  int code = 0;            // exit code, as of `trapline run`; 128 + signal
  double seconds = 0;      // from start to end
  double cpu_seconds = 0;  // of all its processes
  std::vector<Line> lines;
  bool cut = false;                                   // there was more output than is kept
  std::string messages;                               // of standard error
  std::optional<u64> memory;                          // peak of anonymous_memory()
  std::optional<monitor::RunFigures> figures;         // nothing: it was never powered on
  std::optional<channel::SensitiveCounts> sensitive;  // if counted: of all vCPUs
  // The last line of `messages`, without the program's name.
  std::string last_message() const;
};

// Runs it. `counted`: with every instruction counted, and the sensitive ones by way. Standard input is empty. An error
// is one line: this process could not begin.
Result<GuestRun, std::string> run_guest(const machine::Config& config, bool counted);

}  // namespace trapline::compare
