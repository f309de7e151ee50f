// A thread that touches memory for the first time before a vCPU does (base/touch_ahead.h).
#pragma once

#include <array>
#include <atomic>

#include "base/types.h"

namespace trapline::core {

// Requests between threads. One reader; writers never wait: the newest request replaces one that was not read in time.
class TouchRequests {
 public:
  struct Request {
    u64 at = 0, bytes = 0;  // bytes: of whole 64 KiB
  };
  void put(Request request);  // any thread
  bool take(Request& request);
  std::atomic<u32>& bell() { return bell_; }  // counts put()

 private:
  static constexpr u64 kUnit = 64 * KiB;
  std::array<std::atomic<u64>, 16> slots_{};  // at / 64 KiB, and units << 40; 0: none
  std::atomic<u32> next_{0};
  std::atomic<u32> bell_{0};
};

// Starts the thread that serves touch_ahead(), and waits until it runs. Before the sandbox closes.
void start_touching_ahead();

}  // namespace trapline::core
