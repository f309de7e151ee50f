// How much memory a process and its descendants use beside the guest's.
#pragma once

#include <sys/types.h>

#include <optional>

#include "base/types.h"

namespace trapline::compare {

// Bytes of anonymous memory (RssAnon of /proc/PID/status) of `root` and all its descendants now. Guest RAM, the channel
// and translated code are files in memory and no part of it. A page that a process shares with its parent since a fork
// counts in both. Nothing: this host's /proc does not say whose children processes are.
std::optional<u64> anonymous_memory(pid_t root);

}  // namespace trapline::compare
