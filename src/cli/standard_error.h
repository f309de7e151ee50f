// Where the command line's user is told things.
#pragma once

#include <unistd.h>

#include "base/write.h"
#include "monitor/speaker.h"

namespace trapline::cli {

inline monitor::Speaker on_standard_error() {
  return {[](const std::string& line, int hurry) { say(line, hurry); },
          [](const std::string& text, int hurry) { write_all(STDERR_FILENO, text, hurry); }};
}

}  // namespace trapline::cli
