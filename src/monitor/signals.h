// Signals as a descriptor: heard by the main thread, between two steps, never in the middle of one.
#pragma once

#include <vector>

#include "monitor/files.h"

namespace trapline::monitor {

// Job control, children, and every signal that would end the process without a core dump, but for those that were
// ignored when it started (nohup, a shell's background jobs): these stay ignored.
class SignalSource {
 public:
  SignalSource();  // blocks them in this thread and in all it starts; throws HostRefused
  SignalSource(const SignalSource&) = delete;

  int fd() const { return fd_.get(); }
  std::vector<int> take();  // what has arrived; never blocks

 private:
  Fd fd_;
};

}  // namespace trapline::monitor
