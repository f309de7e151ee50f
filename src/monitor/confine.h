// A filter for those threads of the monitor that handle what others send: the core's requests, keys, a debugger. They
// may compute, wait, and use descriptors that are open. What else they try fails with EPERM.
#pragma once

namespace trapline::monitor {

// For the calling thread, for good. Throws HostRefused: this host has no seccomp.
void confine_thread();

}  // namespace trapline::monitor
