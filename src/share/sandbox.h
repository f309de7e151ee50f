// Closes in a process that serves a folder: it can work on files below the folder, and do nothing else. Landlock says
// which files, where the kernel has it; the seccomp filter says which calls: no socket, no other process, no program,
// no memory to execute.
#pragma once

#include <string>

#include "base/result.h"

namespace trapline::share {

struct Confinement {
  int folder = -1;
  bool readonly = false;
};

// Before descriptors are closed: dies with its parent, no new privileges, cannot be attached to. Of capabilities only
// those stay that make root's files reachable: over owners and modes, nothing else.
void harden_process();

// First Landlock, of the thread that calls and those that it starts later; then the filter, of all threads. Errors are
// one line.
Result<void, std::string> restrict_files(const Confinement& confinement);
Result<void, std::string> filter_calls();

// The version of Landlock that the kernel offers; 0: none.
int landlock_version();

}  // namespace trapline::share
