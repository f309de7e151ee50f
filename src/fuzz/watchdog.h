// Ends sequences that loop in an engine which counts no instructions, and so knows no budget.
#pragma once

#include <pthread.h>
#include <time.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "base/types.h"

namespace trapline::fuzz {

class Watchdog {
 public:
  // Watches the calling thread, whose engine returns Exit::kicked soon after attention::kick is set.
  explicit Watchdog(std::atomic<u32>& attention);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  void begin() { run_.fetch_add(1); }  // of a sequence
  // Was the kick meant for the sequence that is running? One can come late, for the sequence before.
  bool gave_up() const { return expired_.load() == run_.load(); }

 private:
  void watch();
  u64 cpu_ns() const;

  std::atomic<u32>& attention_;
  clockid_t clock_{};
  std::atomic<u64> run_{0}, expired_{0};
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stop_ = false;   // under mutex_
  std::thread thread_;  // last: it uses the others
};

}  // namespace trapline::fuzz
