// Signals as a descriptor: handled by the main thread, between two steps, never in the middle of one.
#pragma once

#include <vector>

namespace trapline::monitor {

class SignalSource {
 public:
  SignalSource();  // blocks them in this thread and in all it starts
  ~SignalSource();
  SignalSource(const SignalSource&) = delete;

  int fd() const { return fd_; }
  std::vector<int> take();  // what has arrived; never blocks

 private:
  int fd_;
};

}  // namespace trapline::monitor
