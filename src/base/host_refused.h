// What the host does not give: a descriptor, a thread, a timer, memory for a mapping. Thrown where a constructor or a
// thread cannot return a Result, and caught where the process decides its exit code (7). The text is one line for the
// user, with the remedy.
#pragma once

#include <stdexcept>

namespace trapline {

struct HostRefused : std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace trapline
