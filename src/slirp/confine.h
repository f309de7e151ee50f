// What the network's process may still do.
#pragma once

#include <string>

namespace trapline::slirp {

// Files: the resolver's configuration alone, where the host has Landlock. System calls: sockets, memory, time. Empty, or
// what failed.
std::string confine_process();

}  // namespace trapline::slirp
