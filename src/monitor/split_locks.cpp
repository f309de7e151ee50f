#include "monitor/split_locks.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <string>

#include "base/types.h"

namespace trapline::monitor {

namespace {

bool cpuinfo_names_it() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);)
    if (line.rfind("flags", 0) == 0)
      return line.find(" split_lock_detect") != std::string::npos || line.find(" bus_lock_detect") != std::string::npos;
  return false;
}

}  // namespace

bool host_traps_split_locks() {
  static const bool result = [] {
    if (!cpuinfo_names_it()) return false;
    const pid_t child = fork();
    if (child < 0) return true;  // the slower way is right everywhere
    if (child == 0) {
      signal(SIGBUS, SIG_DFL);
      alignas(64) static u8 lines[128] = {};
      asm volatile("lock addl $1, %0" : "+m"(*reinterpret_cast<u32*>(lines + 62)) : : "cc");
      _exit(0);
    }
    int status = 0;
    return waitpid(child, &status, 0) != child || !WIFEXITED(status);
  }();
  return result;
}

}  // namespace trapline::monitor
