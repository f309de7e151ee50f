// Threads of the monitor: none is left by an exception.
#pragma once

#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "channel/exit_codes.h"

namespace trapline::monitor {

// What to do about a thread that failed: its exit code, and one line for the user. Called on that thread.
using OnFailure = std::function<void(ExitCode, const std::string&)>;

// Throws HostRefused when there is no thread to be had.
std::thread start_thread(std::function<void()> body, OnFailure failed);
// The same, behind the filter of confine.h, with `more` system calls.
std::thread start_confined_thread(std::function<void()> body, OnFailure failed, std::vector<int> more = {});

}  // namespace trapline::monitor
