// Between fork and exec of the monitor's other processes: the core, and those that serve devices.
#pragma once

#include <vector>

namespace trapline::monitor {

// In the child, by system calls only: becomes this executable with these words, an empty environment, no signal blocked
// and those to the process group ignored. `descriptors` stay open. It dies with the thread that forked; `lifeline` is a
// pipe that the parent holds the writing end of, so that a child which starts too late for that ends too.
[[noreturn]] void become_child(char** argv, const std::vector<int>& descriptors, const int (&lifeline)[2]);

}  // namespace trapline::monitor
