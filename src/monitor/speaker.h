// How the user is told something: the monitor prints nothing itself, and has no words for errors.
#pragma once

#include <functional>
#include <string>

#include "monitor/vm_error.h"

namespace trapline::monitor {

// `hurry` (-1: none) becomes readable when nobody is to wait for a slow reader any more.
struct Speaker {
  using Tell = std::function<void(const std::string& text, int hurry)>;
  Tell line;                                               // a message
  Tell report;                                             // lines that were asked for
  std::function<std::string(const VmError& error)> words;  // one line
};

}  // namespace trapline::monitor
