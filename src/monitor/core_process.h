// The core process as the monitor handles it: started from the monitor's own executable, stopped in any case.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "base/result.h"
#include "core/channel.h"

namespace trapline::monitor {

class CoreProcess {
 public:
  CoreProcess() = default;
  ~CoreProcess() { kill_and_wait(); }
  CoreProcess(const CoreProcess&) = delete;

  // `descriptors` stay open in the core, by the same numbers. To be called on the main thread: the core dies with the
  // thread that started it.
  Result<void, std::string> start(const core::Channel& channel, const std::vector<int>& descriptors);

  bool running() const { return pid_ > 0; }
  pid_t pid() const { return pid_; }
  bool reap();  // true once it is gone; never blocks
  void kill_and_wait();
  int wait_status() const { return status_; }  // of waitpid(), once it is gone

 private:
  pid_t pid_ = -1;
  int status_ = 0;
};

}  // namespace trapline::monitor
