// The life of one VM, from a checked configuration to an exit code.
#pragma once

#include "machine/config.h"

namespace trapline::monitor {

// Runs the VM on this process's terminal and returns the exit code (channel/exit_codes.h). Messages go to standard
// error, one line each. Call on the main thread, before any other thread exists.
int run_vm(const machine::Config& config);

// Open standard descriptors before anything else may take their numbers. Returns false when standard output is closed.
bool secure_standard_descriptors();

}  // namespace trapline::monitor
