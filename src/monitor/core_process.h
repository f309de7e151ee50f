// The core process as the monitor handles it: started from the monitor's own executable, stopped in any case.
#pragma once

#include <sys/types.h>

#include <mutex>
#include <string>
#include <vector>

#include "base/result.h"
#include "channel/channel.h"
#include "monitor/files.h"

namespace trapline::monitor {

class CoreProcess {
 public:
  CoreProcess() = default;
  ~CoreProcess() { kill_and_wait(); }
  CoreProcess(const CoreProcess&) = delete;

  // -- By the thread that starts it, which must live on: the core dies with that thread.
  // `descriptors` stay open in the core, by the same numbers. `visible`: in the host's namespaces, where perf finds it.
  Result<void, VmError> start(const channel::Channel& channel, const std::vector<int>& descriptors, bool visible);
  bool reap();  // true once it is gone; never blocks
  void kill_and_wait();
  void
  kill_and_leave();  // it dies in its own time, which a busy host may take long for: its memory is given back there
  int wait_status() const { return status_; }  // of waitpid(), once it is gone
  pid_t pid() const { return pid_; }

  // -- By any thread.
  bool running() const;
  bool has_ended() const;         // it has, and was not reaped yet
  void signal(int number) const;  // if it is there

 private:
  mutable std::mutex mutex_;  // a process id is used under it: once reaped, it may be another process's
  pid_t pid_ = -1;
  Fd lifeline_;  // hangs up with this process: a core that starts later than that ends
  int status_ = 0;
};

}  // namespace trapline::monitor
