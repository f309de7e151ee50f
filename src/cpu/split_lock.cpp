#include "cpu/split_lock.h"

#include <sched.h>

#include <atomic>
#include <cstring>
#include <mutex>

#include "cpu/code_map.h"
#include "cpu/vcpu.h"

namespace trapline::cpu {

namespace {

std::mutex pieces_mutex, lines_mutex;
std::atomic<bool> traps{false};

}  // namespace

SplitLock::SplitLock(Vcpu& cpu) {
  for (unsigned tries = 1; !pieces_mutex.try_lock(); tries++) {
    if (cpu.code) cpu.code->serve(cpu);
    if (tries % 64 == 0) ::sched_yield();
  }
}
SplitLock::~SplitLock() { pieces_mutex.unlock(); }

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
