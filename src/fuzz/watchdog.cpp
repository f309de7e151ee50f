#include "fuzz/watchdog.h"

#include <chrono>

#include "base/invariant.h"
#include "cpu/vcpu.h"

namespace trapline::fuzz {

namespace {

constexpr auto kLook = std::chrono::milliseconds{100};
constexpr u64 kBusyNs = 50'000'000;  // of CPU time between two looks; sequences take microseconds

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

// By CPU time: a busy machine that leaves the thread waiting makes no loop of what it runs.
void Watchdog::watch() {
  std::unique_lock lock{mutex_};
  u64 seen = 0, before = 0;
  while (!wake_.wait_for(lock, kLook, [this] { return stop_; })) {
    const u64 run = run_.load(), now = cpu_ns();
    if (run == seen && now - before >= kBusyNs) {
      expired_.store(run);
      attention_.fetch_or(cpu::attention::kick);
    }
    seen = run, before = now;
  }
}

}  // namespace trapline::fuzz
