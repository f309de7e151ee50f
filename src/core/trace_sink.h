// Trace lines of this process, gathered and written to one descriptor. The two processes of a VM share the descriptor
// and flush before they hand over to each other, so that lines are in the order of events.
#pragma once

namespace trapline::core {

void open_trace(int fd);  // installs the sink; before threads start
void flush_trace();
int trace_error();  // errno of the write that ended the trace; 0: none did

}  // namespace trapline::core
