// The user's terminal in raw mode, and back on every way out: finish(), the destructor, and restore_terminal() from
// signal handlers. Only while this process is in the terminal's foreground: in the background it belongs to others.
#pragma once

#include <mutex>

namespace trapline::monitor {

// Any thread.
class Terminal {
 public:
  Terminal() = default;
  ~Terminal() { finish(); }
  Terminal(const Terminal&) = delete;

  void begin();    // raw mode if standard input is a terminal and we are in its foreground
  void suspend();  // before the process stops
  void resume();   // after it continues, or was told to though it ran
  void finish();   // as it was, for good

 private:
  std::mutex mutex_;
  bool wanted_ = false;
};

void restore_terminal();  // async-signal-safe, idempotent

// SIGSEGV and its like in the monitor: restore, then die of the signal as usual.
void install_terminal_guard();

}  // namespace trapline::monitor
