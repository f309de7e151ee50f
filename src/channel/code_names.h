// --perf-map: the log of places of translated code, memory that the core writes and the monitor treats as hostile.
#pragma once

#include <atomic>

#include "base/addr.h"

namespace trapline::channel {

struct CodeName {
  Hva host;
  u64 bytes = 0;
  Gva guest;                  // 0: code that all blocks share
  std::atomic<u32> ready{0};  // stored last
  u32 vcpu = 0;
};

struct CodeNames {
  static constexpr u32 kCapacity = 1 << 20;
  std::atomic<u32> count;  // goes on counting when the log is full
  u32 unused[15];
  CodeName name[kCapacity];

  // The core's. Any vCPU's thread.
  void add(Hva host, u64 bytes, Gva guest, u32 vcpu) {
    const u32 at = count.fetch_add(1, std::memory_order_relaxed);
    if (at >= kCapacity) return;
    CodeName& n = name[at];
    n.host = host, n.bytes = bytes, n.guest = guest, n.vcpu = vcpu;
    n.ready.store(1, std::memory_order_release);
  }
};

}  // namespace trapline::channel
