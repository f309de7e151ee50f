// The user's terminal in raw mode, and back on every way out: the destructor, and restore_terminal() from signal
// handlers.
#pragma once

namespace trapline::monitor {

class Terminal {
 public:
  Terminal();  // raw mode if standard input is a terminal and we are in its foreground
  ~Terminal();
  Terminal(const Terminal&) = delete;

  bool raw() const;
  void suspend();  // before the process stops
  void resume();   // after it continues
};

void restore_terminal();  // async-signal-safe, idempotent

// SIGSEGV and its like in the monitor: restore, then die of the signal as usual.
void install_terminal_guard();

}  // namespace trapline::monitor
