#include "compare/process_memory.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <stdlib.h>
#include <unistd.h>

#include <string>
#include <vector>

namespace trapline::compare {

namespace {

std::optional<std::string> read_text(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return std::nullopt;
  char buffer[8192];
  const ssize_t n = ::read(fd, buffer, sizeof buffer);
  ::close(fd);
  if (n < 0) return std::nullopt;
  return std::string(buffer, static_cast<std::size_t>(n));
}

// Appends the children of all threads of `process`. False: /proc/PID/task/TID/children is not there
// (CONFIG_PROC_CHILDREN).
bool add_children(pid_t process, std::vector<pid_t>& out) {
  const std::string tasks = fmt::format("/proc/{}/task", process);
  DIR* folder = ::opendir(tasks.c_str());
  if (!folder) return true;  // it has ended
  bool known = true;
  while (const dirent* entry = ::readdir(folder)) {
    if (entry->d_name[0] == '.') continue;
    const std::string thread = tasks + '/' + entry->d_name;
    const auto list = read_text(thread + "/children");
    if (!list) {
      known = known && ::access(thread.c_str(), F_OK) != 0;
      continue;
    }
    for (const char* at = list->c_str(); *at;) {
      char* end = nullptr;
      const long child = ::strtol(at, &end, 10);
      if (end == at) break;
      out.push_back(static_cast<pid_t>(child));
      at = end + (*end == ' ');
    }
  }
  ::closedir(folder);
  return known;
}

u64 own_anonymous(pid_t process) {
  constexpr std::string_view kField = "RssAnon:";
  const auto status = read_text(fmt::format("/proc/{}/status", process));
  if (!status) return 0;
  const auto at = status->find(kField);
  return at == std::string::npos ? 0 : ::strtoull(status->c_str() + at + kField.size(), nullptr, 10) * KiB;
}

}  // namespace

std::optional<u64> anonymous_memory(pid_t root) {
  constexpr std::size_t kMost = 4096;  // processes: nobody makes them faster than they are read
  std::vector<pid_t> all{root};
  u64 sum = 0;
  for (std::size_t i = 0; i < all.size() && i < kMost; i++) {
    sum += own_anonymous(all[i]);
    if (!add_children(all[i], all)) return std::nullopt;
  }
  return sum;
}

}  // namespace trapline::compare
