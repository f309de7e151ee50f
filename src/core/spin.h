// How long to poll a shared word before sleeping on it. Waking a process across cores costs tens of microseconds, polling a tenth of
// one: worth it only while the other side answers soon, and only if polling takes no CPU from a vCPU. Ticks are host TSC ticks;
// the limits are of the order of microseconds whatever the frequency.
#pragma once

#include <x86intrin.h>

#include <algorithm>

#include "base/types.h"
#include "core/futex.h"

namespace trapline::core {

class Spin {
 public:
  // longest: upper bound of one poll. 0: never poll (one CPU).
  explicit Spin(u64 longest_ticks) : longest_{longest_ticks} {}

  static u64 longest_for(unsigned vcpus) {
    const unsigned cpus = usable_cpus();
    if (cpus < 2) return 0;
    return cpus > vcpus ? 400'000 : 60'000;  // a CPU to spare: ~150 us; every CPU has a vCPU: ~20 us
  }

  // The other side took `ticks` this time.
  void observe(u64 ticks) {
    const u64 t = std::min(ticks, 4 * longest_);
    average_ = average_ - average_ / 8 + t / 8;
  }
  // Expected within the limit: poll twice the expectation. Else not at all: it would be wasted.
  u64 limit() const { return average_ > longest_ ? 0 : std::min(longest_, 2 * average_ + longest_ / 8); }

  // Polls until done() or the limit; returns done().
  template <class Done>
  bool wait(Done done) const {
    if (done()) return true;
    const u64 limit_ticks = limit();
    if (limit_ticks == 0) return false;
    const u64 start = __rdtsc();
    do {
      for (int i = 0; i < 8; i++) {
        cpu_relax();
        if (done()) return true;
      }
    } while (__rdtsc() - start < limit_ticks);
    return false;
  }

 private:
  u64 longest_;
  u64 average_ = 0;
};

}  // namespace trapline::core
