// A filter for those threads of the monitor that handle what others send: the core's requests, keys, a debugger. They
// may compute, wait, and use descriptors that are open. What else they try fails with EPERM.
#pragma once

#include <span>

namespace trapline::monitor {

// For the calling thread, for good. `more`: system calls beside those that all have. Throws HostRefused: this host has
// no seccomp.
void confine_thread(std::span<const int> more = {});

}  // namespace trapline::monitor
