// What /proc says of other processes.
#pragma once

#include <dirent.h>
#include <signal.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

namespace trapline::test {

// Processes whose parent is `parent`.
inline std::vector<pid_t> children_of(pid_t parent) {
  std::vector<pid_t> found;
  DIR* proc = ::opendir("/proc");
  while (const dirent* e = proc ? ::readdir(proc) : nullptr) {
    std::ifstream stat{std::string{"/proc/"} + e->d_name + "/stat"};
    std::string text;
    if (!std::getline(stat, text)) continue;
    const auto after = text.rfind(')');
    pid_t ppid = 0;
    char state = 0;
    if (after != std::string::npos && std::sscanf(text.c_str() + after + 1, " %c %d", &state, &ppid) == 2 &&
        ppid == parent)
      found.push_back(std::atoi(e->d_name));
  }
  if (proc) ::closedir(proc);
  return found;
}

inline char state_of(pid_t pid) {
  std::ifstream stat{"/proc/" + std::to_string(pid) + "/stat"};
  std::string text;
  if (!std::getline(stat, text) || text.rfind(')') + 2 >= text.size()) return '?';
  return text[text.rfind(')') + 2];
}

inline bool gone(pid_t pid) {
  for (int i = 0; i < 200; i++) {
    if (::kill(pid, 0) != 0 && errno == ESRCH) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds{10});
  }
  return false;
}

// The field "Name:" of /proc/PID/status, or of one of its threads.
inline std::string status_field(const std::string& process, const std::string& name) {
  std::ifstream status{"/proc/" + process + "/status"};
  for (std::string line; std::getline(status, line);)
    if (line.starts_with(name + ":\t")) return line.substr(name.size() + 2);
  return {};
}

}  // namespace trapline::test
