// The parts of the workload. Each does one kind of thing often and returns a number that follows from all of it, which
// is the same on every machine.
#pragma once

#include "base/types.h"

namespace trapline::workload {

inline constexpr const char* kChild = "child";  // the first argument of what part_exec starts

u64 part_compute();   // integers, branches, floating point: innocuous instructions of ring 3
u64 part_calls();     // system calls that do nothing
u64 part_faults();    // first touches of memory
u64 part_mappings();  // mmap, mprotect, munmap
u64 part_fork();      // processes that end at once
u64 part_exec();      // programs that end at once
u64 part_switch();    // two processes that wake each other by pipes
u64 part_signals();   // signals to itself, and handlers
u64 part_files();     // files made, read back and removed
u64 part_sleep();     // short sleeps: idle loop and timer

}  // namespace trapline::workload
