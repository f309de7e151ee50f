// A VM without a terminal (`run --detach`): a process of its own, the keeper, is the other end of its console. It writes
// what the guest says to a log, and to whoever has attached to a socket beside the VM's name.
#pragma once

#include <functional>
#include <string>

#include "monitor/speaker.h"

namespace trapline::monitor {

// Starts the keeper and below it `vm`, whose standard streams are the console. Returns the exit code of this command
// once the VM has its name, which goes to standard output; or, where it ended before, the VM's, and what it said to
// standard error. Call while there is one thread.
int run_detached(const std::function<int()>& vm, const Speaker& speaker);

// `trapline console NAME`: this terminal on that VM's console, until Ctrl-A D or the VM's end. The exit code.
int attach_console(const std::string& name, const Speaker& speaker);

// `trapline logs NAME`: what the last VM of that name has said; with `follow`, until it ends. The exit code.
int show_log(const std::string& name, bool follow, const Speaker& speaker);

}  // namespace trapline::monitor
