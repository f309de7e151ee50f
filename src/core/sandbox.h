// Closes the core in. After lock_down() this process can compute, sleep and wake others through shared memory, write to
// the one trace descriptor if it has one, and end. It cannot name a file, a socket or another process, nor make new
// executable memory.
#pragma once

#include <string>

#include "base/result.h"

namespace trapline::core {

// Early: no new privileges, dies with the monitor, not attachable, no core dumps. False: the monitor is gone already.
bool harden_process(int monitor_pid);

// Closes every descriptor but `keep` (-1: none), which becomes descriptor 0. Returns 0, or -1 without one.
int close_descriptors(int keep);

// Installs the seccomp allow-list for all threads of the process. `trace_fd`: the one descriptor that may be written,
// or -1.
Result<void, std::string> lock_down(int trace_fd);

}  // namespace trapline::core
