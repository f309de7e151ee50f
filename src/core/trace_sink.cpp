#include "core/trace_sink.h"

#include <sched.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <mutex>
#include <string>

#include "base/trace.h"

namespace trapline::core {

namespace {

constexpr std::size_t kBuffer = 64 * 1024;

struct {
  std::mutex mutex;
  std::string pending;
  int fd = -1;
  std::atomic<int> error{0};
} g_trace;

// A trace that cannot be written ends and the VM goes on; the monitor says so at the end.
void write_all(const std::string& text) {
  std::size_t done = 0;
  while (done < text.size() && g_trace.fd >= 0) {
    const ssize_t n = ::write(g_trace.fd, text.data() + done, text.size() - done);
    if (n > 0) {
      done += static_cast<std::size_t>(n);
    } else if (errno == EAGAIN) {
      ::sched_yield();
    } else if (errno != EINTR) {
      g_trace.error = n == 0 ? ENOSPC : errno;
      g_trace.fd = -1;
    }
  }
}

void flush_locked() {
  write_all(g_trace.pending);
  g_trace.pending.clear();
}

void sink(std::string_view line) {
  std::lock_guard lock{g_trace.mutex};
  g_trace.pending.append(line);
  g_trace.pending.push_back('\n');
  if (g_trace.pending.size() >= kBuffer) flush_locked();
}

}  // namespace

void open_trace(int fd) {
  g_trace.fd = fd;
  g_trace.pending.reserve(kBuffer + 4096);
  trace::set_sink(sink);
}

void flush_trace() {
  std::lock_guard lock{g_trace.mutex};
  if (!g_trace.pending.empty()) flush_locked();
}

int trace_error() { return g_trace.error; }

}  // namespace trapline::core
