#include "monitor/output.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <x86intrin.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace trapline::monitor {

namespace {
constexpr std::size_t kChunk = 1024;  // below PIPE_BUF: a pipe that polls writable takes it whole
constexpr u64 kOldTicks = 3'000'000;  // about a millisecond
}  // namespace

Output::Output(int fd) : fd_{fd}, cancel_fd_{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)} {}

Output::~Output() {
  if (cancel_fd_ >= 0) ::close(cancel_fd_);
}

void Output::put(u8 byte) {
  if (error_.load(std::memory_order_relaxed)) return;
  std::lock_guard lock{buffer_mutex_};
  if (buffer_.empty()) oldest_.store(__rdtsc(), std::memory_order_relaxed);
  buffer_.push_back(static_cast<char>(byte));
  size_.store(buffer_.size(), std::memory_order_relaxed);
}

bool Output::due() const {
  const std::size_t n = size_.load(std::memory_order_relaxed);
  return n >= kChunk || (n > 0 && __rdtsc() - oldest_.load(std::memory_order_relaxed) > kOldTicks);
}

// False: cancelled.
bool Output::wait_writable() {
  for (;;) {
    pollfd p[2] = {{fd_, POLLOUT, 0}, {cancel_fd_, POLLIN, 0}};
    if (::poll(p, 2, -1) < 0) {
      if (errno == EINTR) continue;
      return true;  // let write() say what is wrong
    }
    if (p[0].revents) return true;
    if (p[1].revents) return false;
  }
}

void Output::flush() {
  std::lock_guard writing{write_mutex_};
  std::string text;
  {
    std::lock_guard lock{buffer_mutex_};
    text.swap(buffer_);
    size_.store(0, std::memory_order_relaxed);
  }
  std::size_t done = 0;
  while (done < text.size() && !error_) {
    if (!wait_writable()) break;
    const ssize_t n = ::write(fd_, text.data() + done, std::min(kChunk, text.size() - done));
    if (n >= 0)
      done += static_cast<std::size_t>(n);
    else if (errno != EINTR && errno != EAGAIN)
      error_ = errno;
  }
}

void Output::cancel() {
  const u64 one = 1;
  [[maybe_unused]] const ssize_t n = ::write(cancel_fd_, &one, sizeof one);
}

}  // namespace trapline::monitor
