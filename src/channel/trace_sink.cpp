#include "channel/trace_sink.h"

#include <atomic>
#include <cerrno>
#include <mutex>
#include <string>

#include "base/trace.h"
#include "base/write.h"

namespace trapline::channel {

namespace {

constexpr std::size_t kBuffer = 64 * 1024;

struct {
  std::mutex mutex;
  std::string pending;
  int fd = -1, cancel = -1;
  u64 written = 0;
  std::atomic<int> error{0};
} g_trace;

// A trace that cannot be written ends and the VM goes on; the monitor says so at the end.
void write_pending() {
  if (g_trace.fd < 0) return;
  g_trace.written += g_trace.pending.size();
  const bool too_much = g_trace.written > kMostTraceBytes;
  if (const int error = too_much ? EFBIG : write_all(g_trace.fd, g_trace.pending, g_trace.cancel)) {
    g_trace.error = error;
    g_trace.fd = -1;
  }
}

void flush_locked() {
  write_pending();
  g_trace.pending.clear();
}

void sink(std::string_view line) {
  std::lock_guard lock{g_trace.mutex};
  g_trace.pending.append(line);
  g_trace.pending.push_back('\n');
  if (g_trace.pending.size() >= kBuffer) flush_locked();
}

}  // namespace

void open_trace(int fd, int cancel) {
  g_trace.fd = fd;
  g_trace.cancel = cancel;
  g_trace.pending.reserve(kBuffer + 4096);
  trace::set_sink(sink);
}

void flush_trace() {
  std::lock_guard lock{g_trace.mutex};
  if (!g_trace.pending.empty()) flush_locked();
}

int trace_error() { return g_trace.error; }

}  // namespace trapline::channel
