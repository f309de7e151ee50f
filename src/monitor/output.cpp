#include "monitor/output.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>
#include <x86intrin.h>

#include <cerrno>

#include "base/write.h"

namespace trapline::monitor {

namespace {

constexpr std::size_t kChunk = 1024;
constexpr std::size_t kKept = 4096;
constexpr u64 kOldTicks = 3'000'000;  // about a millisecond

// A terminal that polls writable may take less than a chunk, and then block.
Fd open_without_blocking(int fd) {
  if (!::isatty(fd)) return {};
  return Fd{::open(fmt::format("/proc/self/fd/{}", fd).c_str(), O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)};
}

}  // namespace

Output::Output(int fd, const Event& hurry)
    : own_{open_without_blocking(fd)}, fd_{own_ ? own_.get() : fd}, hurry_{hurry} {}

void Output::put(u8 byte) {
  if (error_.load(std::memory_order_relaxed)) return;
  std::lock_guard lock{buffer_mutex_};
  if (buffer_.empty()) oldest_.store(__rdtsc(), std::memory_order_relaxed);
  buffer_.push_back(static_cast<char>(byte));
  size_.store(buffer_.size(), std::memory_order_relaxed);
  used_.store(true, std::memory_order_relaxed);
}

bool Output::due() const {
  const std::size_t n = size_.load(std::memory_order_relaxed);
  return n >= kChunk || (n > 0 && __rdtsc() - oldest_.load(std::memory_order_relaxed) > kOldTicks);
}

void Output::flush() {
  std::lock_guard writing{write_mutex_};
  std::string text;
  {
    std::lock_guard lock{buffer_mutex_};
    text.swap(buffer_);
    size_.store(0, std::memory_order_relaxed);
  }
  if (text.empty() || error_) return;
  if (fd_ < 0) {
    kept_ += text;
    if (kept_.size() > kKept) kept_.erase(0, kept_.size() - kKept);
    return;
  }
  const int error = write_all(fd_, text, hurry_.fd());
  if (error == ECANCELED)
    cut_ = true;
  else if (error)
    error_ = error;
}

std::string Output::kept() {
  std::lock_guard writing{write_mutex_};
  return kept_;
}

}  // namespace trapline::monitor
