#include "cpu/split_lock.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <fstream>
#include <mutex>
#include <string>

namespace trapline::cpu {

namespace {

std::mutex pieces_mutex, lines_mutex;
std::atomic<bool> traps{false};

bool cpuinfo_names_it() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);)
    if (line.rfind("flags", 0) == 0)
      return line.find(" split_lock_detect") != std::string::npos || line.find(" bus_lock_detect") != std::string::npos;
  return false;
}

}  // namespace

SplitLock::SplitLock() { pieces_mutex.lock(); }
SplitLock::~SplitLock() { pieces_mutex.unlock(); }

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

void set_split_locks_trap(bool trap) { traps.store(trap, std::memory_order_relaxed); }
bool split_locks_trap() { return traps.load(std::memory_order_relaxed); }

bool compare_exchange_in_turn(void* cell, void* expected, const void* wanted, unsigned size) {
  const std::lock_guard turn{lines_mutex};
  if (std::memcmp(cell, expected, size) != 0) {
    std::memcpy(expected, cell, size);
    return false;
  }
  std::memcpy(cell, wanted, size);
  return true;
}

}  // namespace trapline::cpu
