// Notifications of virtio queues on their way from the guest to the device's worker thread: posted, not asked for, so
// that no vCPU waits. A bit a queue; a bell that rings twice before anybody looks has rung once.
#pragma once

#include <atomic>

#include "base/types.h"
#include "channel/futex.h"

namespace trapline::channel {

inline constexpr u32 kDoorbells = 31;  // devices: as many as PCI slots

// Writable by both processes; whatever a lying core writes, a worker looks at a queue once more.
struct alignas(64) Doorbell {
  std::atomic<u64> rung{0};
  std::atomic<u32> sleeps{0};  // 1 while the worker waits; a futex

  void ring(unsigned queue) {
    rung.fetch_or(u64{1} << (queue & 63));  // seq_cst: before the look at `sleeps`
    wake();
  }
  void wake() {
    if (sleeps.load() != 0 && sleeps.exchange(0) != 0) futex_wake(sleeps);
  }
  // The worker: which queues, since the last call; waits until there is one or `give_up()`.
  template <class GiveUp>
  u64 take(GiveUp give_up) {
    for (;;) {
      if (const u64 queues = rung.exchange(0)) return queues;
      if (give_up()) return 0;
      sleeps.store(1);  // seq_cst: before the second look
      if (rung.load() == 0 && !give_up()) futex_wait(sleeps, 1);
      sleeps.store(0);
    }
  }
};

}  // namespace trapline::channel
