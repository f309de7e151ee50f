// The guest's console on standard output. Bytes gather here and go out in chunks. Nothing is dropped: when the reader
// is slow the writer waits; when the output is gone for good, failed() says why and the VM ends.
//
// Threads: put() under the machine's lock; flush() by any thread; cancel() by the main thread ends all waiting.
#pragma once

#include <atomic>
#include <mutex>
#include <string>

#include "base/types.h"

namespace trapline::monitor {

class Output {
 public:
  explicit Output(int fd);
  ~Output();
  Output(const Output&) = delete;

  void put(u8 byte);
  bool due() const;  // enough or old enough to be written now
  void flush();      // everything, waiting for the reader as long as it takes
  void cancel();     // no more waiting: flush() returns with the rest unwritten
  bool empty() const { return size_.load(std::memory_order_relaxed) == 0; }

  // errno of the write that failed, or 0.
  int failed() const { return error_.load(); }

 private:
  bool wait_writable();

  int fd_, cancel_fd_;
  std::mutex buffer_mutex_, write_mutex_;  // order: write_mutex_, then buffer_mutex_
  std::string buffer_;
  std::atomic<std::size_t> size_{0};
  std::atomic<u64> oldest_{0};  // TSC when the oldest byte came
  std::atomic<int> error_{0};
};

}  // namespace trapline::monitor
