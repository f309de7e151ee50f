// Bytes that the guest wrote to COM1's transmitter, on their way to the monitor: posted, not asked for. What comes of
// the write besides the byte (an interrupt: devices::UartView::kInterrupts) comes when it is taken. Every request of
// any vCPU is answered after what was posted before it, and a full ring makes the write a request.
#pragma once

#include <algorithm>
#include <atomic>

#include "base/types.h"
#include "channel/futex.h"

namespace trapline::channel {

// Writable by both processes. `head` belongs to the core, `tail` to the monitor, which believes no `head` that is more
// than a ring away.
struct SerialRing {
  static constexpr u32 kBytes = 8192;
  alignas(64) std::atomic<u32> head{0};  // bytes posted, modulo 2^32
  alignas(64) std::atomic<u32> tail{0};  // bytes taken
  std::atomic<u32> sleeps{0};            // 1 while the monitor's console thread waits for bytes; a futex
  std::atomic<u8> bytes[kBytes] = {};

  // The core's vCPU threads, one at a time. False: full.
  bool post(u8 byte) {
    const u32 at = head.load(std::memory_order_relaxed);
    if (at - tail.load(std::memory_order_acquire) >= kBytes) return false;
    bytes[at % kBytes].store(byte, std::memory_order_relaxed);
    head.store(at + 1);  // seq_cst: before the look at `sleeps`
    wake();
    return true;
  }
  // The core: as far as the monitor says.
  bool all_taken() const { return head.load(std::memory_order_relaxed) == tail.load(std::memory_order_acquire); }
  void wake() {
    if (sleeps.load() != 0 && sleeps.exchange(0) != 0) futex_wake(sleeps);
  }
};

// The monitor's end: how far it has taken bytes, which it does not ask the core for.
class SerialTaker {
 public:
  // Gives each byte posted since the last time to `send`. Returns how many there were.
  template <class Send>
  u32 take(SerialRing& ring, Send send) {
    const u32 posted = std::min(ring.head.load(std::memory_order_acquire) - taken_, SerialRing::kBytes);
    for (u32 i = 0; i < posted; i++)
      send(ring.bytes[(taken_ + i) % SerialRing::kBytes].load(std::memory_order_relaxed));
    taken_ += posted;
    if (posted != 0) ring.tail.store(taken_, std::memory_order_release);
    return posted;
  }
  bool empty(const SerialRing& ring) const { return ring.head.load() == taken_; }

 private:
  u32 taken_ = 0;
};

}  // namespace trapline::channel
