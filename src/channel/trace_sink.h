// Trace lines of this process, gathered and written to one descriptor. The two processes of a VM share the descriptor
// and flush before they hand over to each other, so that lines are in the order of events.
#pragma once

#include "base/types.h"

namespace trapline::channel {

// A trace ends there, in each process: a guest must not be able to fill the disk.
inline constexpr u64 kMostTraceBytes = 16 * GiB;

// Installs the sink; before threads start. `cancel`: as in write_all(); -1 in the core, which may not poll.
void open_trace(int fd, int cancel = -1);
void flush_trace();
int trace_error();  // errno of the write that ended the trace; 0: none did

}  // namespace trapline::channel
