#include "channel/futex.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

namespace trapline::channel {

static_assert(sizeof(std::atomic<u32>) == sizeof(u32) && std::atomic<u32>::is_always_lock_free);

void futex_wait(std::atomic<u32>& word, u32 expected, u64 timeout_ns) {
  timespec ts{};
  ts.tv_sec = static_cast<time_t>(timeout_ns / 1'000'000'000);
  ts.tv_nsec = static_cast<long>(timeout_ns % 1'000'000'000);
  ::syscall(SYS_futex, &word, FUTEX_WAIT, expected, timeout_ns == ~u64{0} ? nullptr : &ts, nullptr, 0);
}

void futex_wake(std::atomic<u32>& word, int waiters) {
  ::syscall(SYS_futex, &word, FUTEX_WAKE, waiters, nullptr, nullptr, 0);
}

unsigned usable_cpus() {
  static const unsigned n = [] {
    cpu_set_t set;
    CPU_ZERO(&set);
    if (::sched_getaffinity(0, sizeof set, &set) != 0) return 1u;
    const int count = CPU_COUNT(&set);
    return count < 1 ? 1u : static_cast<unsigned>(count);
  }();
  return n;
}

}  // namespace trapline::channel
