// The main thread of a run. The VM's life, from opening files to the last message, is on another thread and may wait
// for whatever it likes; this one waits for signals and for --timeout only, so that they are heard at any time.
//
// Signals that end the process become a reason in EndEvent, and `hurry` is set: nothing waits for slow readers then.
// A life that has not come to its end some seconds later is left as it is: the core is killed, the terminal restored,
// and the process ends.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <optional>
#include <string>

#include "monitor/core_process.h"
#include "monitor/end_event.h"
#include "monitor/signals.h"
#include "monitor/terminal.h"

namespace trapline::monitor {

class Watch {
 public:
  // Shared with the life; they outlive the watch.
  struct Shared {
    EndEvent& end;
    Event& hurry;
    CoreProcess& core;
    Terminal& terminal;
    std::function<void(const std::string&)> tell;  // the user, a line
    // The process is about to stop, or goes on (job control).
    std::function<void()> pause, resume;
    // Takes a signal that somebody else shall have: the command of trapline exec, the guest's power button. Nothing:
    // it is this process's. Else how long to wait for what comes of it, zero for ever.
    std::function<std::optional<std::chrono::seconds>(int)> pass_on = {};
  };
  Watch(Shared shared, double timeout_seconds);  // 0: none. Throws HostRefused

  // Runs `life` and returns its exit code. Throws HostRefused when there is no thread for it.
  int run(const std::function<int()>& life);

  // By the life, once there is a machine to end. Before that, an ending signal ends the process at once.
  void machine_begins() { begun_ = true; }
  // The first ending signal, or 0.
  int signal() const { return signal_; }

 private:
  using Clock = std::chrono::steady_clock;
  void on_signal(int signal);
  void on_time();
  int wait_ms() const;
  void end_soon(int code, const std::string& why);
  [[noreturn]] void leave(int code, const std::string& why);

  Shared s_;
  SignalSource signals_;
  double timeout_seconds_;
  Event done_;
  std::atomic<bool> begun_{false};
  std::atomic<int> signal_{0};
  int passed_on_ = 0;   // how many that end a process were passed on
  int waits_with_ = 0;  // the one that is this process's at `grace_`
  std::optional<Clock::time_point> timeout_, last_, grace_;
  int last_code_ = 0;
  std::string last_words_;
};

}  // namespace trapline::monitor
