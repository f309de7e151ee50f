// The guest's console on standard output. Bytes gather here and go out in chunks. Nothing is dropped: when the reader
// is slow the writer waits; when the output is gone for good, failed() says why and the VM ends.
//
// Threads: put() under the machine's lock; flush() by any thread. `hurry` ends all waiting.
#pragma once

#include <atomic>
#include <mutex>
#include <string>

#include "base/types.h"
#include "monitor/event.h"

namespace trapline::monitor {

class Output {
 public:
  Output(int fd, const Event& hurry);
  Output(const Output&) = delete;

  void put(u8 byte);
  bool due() const;  // enough or old enough to be written now
  void flush();      // everything, waiting for the reader as long as it takes, or until `hurry` is set
  bool empty() const { return size_.load(std::memory_order_relaxed) == 0; }
  bool used() const { return used_.load(std::memory_order_relaxed); }  // the guest has written something

  // The last of what would have been written; for an output that goes nowhere (no descriptor, -1).
  std::string kept();

  int failed() const { return error_.load(); }  // errno of the write that failed, or 0
  bool cut() const { return cut_.load(); }      // `hurry` came before everything was written

 private:
  Fd own_;  // of a terminal: a description that does not block, whoever else writes there
  int fd_;
  const Event& hurry_;
  std::mutex buffer_mutex_, write_mutex_;  // order: write_mutex_, then buffer_mutex_
  std::string buffer_;
  std::string kept_;  // under write_mutex_
  std::atomic<std::size_t> size_{0};
  std::atomic<u64> oldest_{0};  // TSC when the oldest byte came
  std::atomic<int> error_{0};
  std::atomic<bool> used_{false}, cut_{false};
};

}  // namespace trapline::monitor
