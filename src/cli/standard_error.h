// Where the command line's user is told things.
#pragma once

#include <unistd.h>

#include "base/write.h"
#include "monitor/speaker.h"
#include "wording/vm_error.h"

namespace trapline::cli {

inline monitor::Speaker on_standard_error() {
  return {[](const std::string& line, int hurry) { say(line, hurry); },
          [](const std::string& text, int hurry) { write_all(STDERR_FILENO, text, hurry); },
          [](const monitor::VmError& error) { return wording::line(error); }};
}

}  // namespace trapline::cli
