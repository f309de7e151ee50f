#include "monitor/console_log.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>

namespace trapline::monitor {

namespace {
constexpr u64 kLongest = 16 * MiB;
}  // namespace

std::string log_path(const std::string& name) {
  const char* state = ::getenv("XDG_STATE_HOME");
  const char* home = ::getenv("HOME");
  if (state && *state == '/') return std::string{state} + "/trapline/" + name + ".log";
  if (home && *home == '/') return std::string{home} + "/.local/state/trapline/" + name + ".log";
  return {};
}

void ConsoleLog::open(const std::string& name) {
  path_ = log_path(name);
  if (path_.empty()) return;
  std::error_code ignored;
  std::filesystem::create_directories(std::filesystem::path{path_}.parent_path(), ignored);
  turn();
}

void ConsoleLog::turn() {
  std::rename(path_.c_str(), (path_ + ".1").c_str());
  fd_ = Fd{::open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600)};
  bytes_ = 0;
}

void ConsoleLog::write(std::string_view text) {
  if (path_.empty()) return;
  if (bytes_ > kLongest) turn();
  bytes_ += text.size();
  while (fd_ && !text.empty()) {
    const ssize_t n = ::write(fd_.get(), text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;
    text.remove_prefix(static_cast<std::size_t>(n));
  }
}

}  // namespace trapline::monitor
