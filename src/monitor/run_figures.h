// What a run of a VM says of itself in numbers, to the process that asked for it (machine::Config::figures_fd): a file
// of one RunFigures, in memory as it is, read by the same executable.
#pragma once

#include <optional>

#include "channel/channel.h"

namespace trapline::monitor {

struct RunFigures {
  u64 tsc_khz = 0;         // of the host; 0: nothing was started
  channel::VcpuStats sum;  // of all vCPUs and resets
};

// False: errno says why.
bool write_figures(int fd, const RunFigures& figures);
// Nothing: there are none.
std::optional<RunFigures> read_figures(int fd);

}  // namespace trapline::monitor
