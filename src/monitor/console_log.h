// What a detached VM says, in $XDG_STATE_HOME/trapline (~/.local/state/trapline): NAME.log, and NAME.log.1, what was
// before.
#pragma once

#include <string>
#include <string_view>

#include "monitor/files.h"

namespace trapline::monitor {

// Empty: there is no place, HOME and XDG_STATE_HOME are not set.
std::string log_path(const std::string& name);

class ConsoleLog {
 public:
  // Begins a new one. What cannot be written is lost: a full disk stops no guest.
  void open(const std::string& name);
  void write(std::string_view text);

 private:
  void turn();  // the log is long: it becomes the one before
  std::string path_;
  Fd fd_;
  u64 bytes_ = 0;
};

}  // namespace trapline::monitor
