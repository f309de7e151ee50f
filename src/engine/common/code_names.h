// --perf-map: where translated code lies and which guest code it is, in a log shared with the monitor, which makes the
// map that `perf` reads of it (monitor/perf_map.h) and treats it as hostile.
#pragma once

#include <atomic>

#include "base/types.h"

namespace trapline::engine {

struct CodeName {
  u64 host = 0, bytes = 0;
  u64 guest = 0;              // linear address; 0: code that all blocks share
  std::atomic<u32> ready{0};  // stored last
  u32 vcpu = 0;
};

struct CodeNames {
  static constexpr u32 kCapacity = 1 << 20;
  std::atomic<u32> count;  // goes on counting when the log is full
  u32 unused[15];
  CodeName name[kCapacity];
};

// Set before vCPU threads start; null: off.
inline CodeNames* code_names = nullptr;

// Any vCPU's thread.
inline void name_code(u64 host, u64 bytes, u64 guest, u32 vcpu) {
  if (!code_names) return;
  const u32 at = code_names->count.fetch_add(1, std::memory_order_relaxed);
  if (at >= CodeNames::kCapacity) return;
  CodeName& n = code_names->name[at];
  n.host = host, n.bytes = bytes, n.guest = guest, n.vcpu = vcpu;
  n.ready.store(1, std::memory_order_release);
}

}  // namespace trapline::engine
