#include "monitor/input.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace trapline::monitor {

namespace {

constexpr std::size_t kQueueLimit = 4096;  // a pipe's writer waits beyond this
constexpr std::size_t kTypeAheadLimit =
    64 * 1024;             // a terminal is read on, or Ctrl-A X would not be seen; what is beyond is dropped
constexpr u8 kEscape = 1;  // Ctrl-A

bool can_block(int fd) {
  struct stat st {};
  return ::fstat(fd, &st) == 0 && (S_ISFIFO(st.st_mode) || S_ISSOCK(st.st_mode) || ::isatty(fd));
}

}  // namespace

Input::Input(bool terminal, bool deterministic, Hooks hooks)
    : terminal_{terminal}, synchronous_{deterministic && !can_block(STDIN_FILENO)}, hooks_{std::move(hooks)} {}

void Input::start() {
  if (!synchronous_) thread_ = start_confined_thread([this] { read_loop(); }, hooks_.failed);
}

void Input::stop() {
  {
    std::lock_guard lock{mutex_};
    stopping_ = true;
  }
  changed_.notify_all();
  wake_.set();
  if (thread_.joinable()) thread_.join();
}

void Input::read_loop() {
  for (u8 bytes[1024];;) {
    {
      std::unique_lock lock{mutex_};
      if (!terminal_) changed_.wait(lock, [&] { return stopping_ || queue_.size() < kQueueLimit; });
      if (stopping_) return;
    }
    pollfd p[2] = {{STDIN_FILENO, POLLIN, 0}, {wake_.fd(), POLLIN, 0}};
    if (::poll(p, 2, -1) < 0 && errno != EINTR) return;
    if (p[1].revents) return;
    if (!p[0].revents) continue;
    const ssize_t n = ::read(STDIN_FILENO, bytes, sizeof bytes);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (n <= 0) return;  // end of input, or none: the guest goes on without
    accept(bytes, static_cast<std::size_t>(n));
  }
}

Input::Key Input::key(u8 byte) {
  if (!terminal_) return Key::guest;
  if (!escaped_) {
    escaped_ = byte == kEscape;
    return escaped_ ? Key::none : Key::guest;
  }
  escaped_ = false;
  if (byte == kEscape) return Key::guest;
  return byte == 'x' || byte == 'X' ? Key::quit : Key::help;
}

void Input::accept(const u8* bytes, std::size_t count) {
  bool quit = false, help = false;
  {
    std::lock_guard lock{mutex_};
    for (std::size_t i = 0; i < count; i++) {
      const Key k = key(bytes[i]);
      quit |= k == Key::quit, help |= k == Key::help;
      if (k == Key::guest && queue_.size() < kTypeAheadLimit) queue_.push_back(bytes[i]);
    }
    count_ = queue_.size();
  }
  changed_.notify_all();
  if (quit) hooks_.quit();
  if (help) hooks_.help();
  hooks_.arrived();
}

void Input::refill() {
  u8 bytes[1024];
  const ssize_t n = at_end_ ? 0 : ::read(STDIN_FILENO, bytes, sizeof bytes);
  if (n <= 0) {
    at_end_ = true;
    return;
  }
  queue_.insert(queue_.end(), bytes, bytes + n);
  count_ = queue_.size();
}

void Input::feed(machine::Chipset& chipset) {
  if (!waiting() && (!synchronous_ || at_end_)) return;
  if (chipset.console_room() == 0) return;
  std::lock_guard lock{mutex_};
  if (queue_.empty() && synchronous_) refill();
  while (!queue_.empty()) {
    u8 some[64];
    const std::size_t n = std::min({queue_.size(), sizeof some, chipset.console_room()});
    if (n == 0) break;
    std::copy_n(queue_.begin(), n, some);
    const std::size_t taken = std::min(n, chipset.console_input(some, n));
    if (taken == 0) break;
    queue_.erase(queue_.begin(), queue_.begin() + static_cast<std::ptrdiff_t>(taken));
  }
  count_ = queue_.size();
  changed_.notify_all();
}

void Input::wait() {
  std::unique_lock lock{mutex_};
  changed_.wait(lock, [&] { return stopping_ || nudged_ || let_go_ || !queue_.empty(); });
  nudged_ = false;
}

void Input::nudge() {
  {
    std::lock_guard lock{mutex_};
    nudged_ = true;
  }
  changed_.notify_all();
}

void Input::let_go(bool on) {
  {
    std::lock_guard lock{mutex_};
    let_go_ = on;
  }
  changed_.notify_all();
}

}  // namespace trapline::monitor
