// A lock for a few instructions at a time, between vCPU threads. It costs an uncontended owner one exchange and one
// store; who finds it taken waits actively, and yields now and then, since its owner may wait for this very CPU.
#pragma once

#include <immintrin.h>
#include <sched.h>

#include <atomic>

namespace trapline::core {

class ShortLock {
 public:
  void lock() {
    for (unsigned tries = 1; taken_.exchange(true, std::memory_order_acquire); tries++) {
      _mm_pause();
      if (tries % 64 == 0) ::sched_yield();
    }
  }
  void unlock() { taken_.store(false, std::memory_order_release); }

 private:
  std::atomic<bool> taken_{false};
};

}  // namespace trapline::core
