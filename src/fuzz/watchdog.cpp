#include "fuzz/watchdog.h"

#include <chrono>

#include "base/invariant.h"
#include "cpu/vcpu.h"

namespace trapline::fuzz {

namespace {

constexpr auto kLook = std::chrono::milliseconds{100};
constexpr unsigned kLooks = 10;       // in a row that find the same sequence; most take microseconds
constexpr u64 kBusyNs = 400'000'000;  // of CPU time meanwhile

}  // namespace

Watchdog::Watchdog(std::atomic<u32>& attention) : attention_{attention} {
  INVARIANT(pthread_getcpuclockid(pthread_self(), &clock_) == 0, "a thread without a CPU clock");
  thread_ = std::thread{[this] { watch(); }};
}

Watchdog::~Watchdog() {
  {
    const std::lock_guard lock{mutex_};
    stop_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

u64 Watchdog::cpu_ns() const {
  timespec t = {};
  clock_gettime(clock_, &t);
  return static_cast<u64>(t.tv_sec) * 1'000'000'000 + static_cast<u64>(t.tv_nsec);
}

// By CPU time too: a busy machine that leaves the thread waiting makes no loop of what it runs. And for a second: time
// that a hypervisor below the host takes from its CPUs may count as the thread's.
void Watchdog::watch() {
  std::unique_lock lock{mutex_};
  u64 seen = 0, since = 0;
  unsigned looks = 0;
  while (!wake_.wait_for(lock, kLook, [this] { return stop_; })) {
    const u64 run = run_.load();
    if (run != seen) {
      seen = run, since = cpu_ns(), looks = 0;
    } else if (++looks >= kLooks && cpu_ns() - since >= kBusyNs) {
      expired_.store(run);
      attention_.fetch_or(cpu::attention::kick);
    }
  }
}

}  // namespace trapline::fuzz
