// An event as a descriptor: set by any thread and by signal handlers, waited for with poll(). Stays set until cleared.
#pragma once

#include "monitor/files.h"

namespace trapline::monitor {

class Event {
 public:
  Event();  // throws HostRefused: no descriptor is left

  int fd() const { return fd_.get(); }
  void set() noexcept;
  void clear() noexcept;
  bool is_set() const noexcept;

 private:
  Fd fd_;
};

}  // namespace trapline::monitor
