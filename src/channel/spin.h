// How long to poll a shared word before sleeping on it. Waking a process across cores costs tens of microseconds,
// polling a tenth of one: worth it only while the other side answers soon, and only if polling takes no CPU from a
// vCPU. Ticks are host TSC ticks; the limits are of the order of microseconds whatever the frequency.
#pragma once

#include <x86intrin.h>

#include <algorithm>

#include "base/types.h"
#include "channel/futex.h"

namespace trapline::channel {

// Polls until done() or for that many ticks; returns done().
template <class Done>
bool poll_for(u64 ticks, Done done) {
  if (done()) return true;
  if (ticks == 0) return false;
  const u64 start = __rdtsc();
  do {
    for (int i = 0; i < 8; i++) {
      cpu_relax();
      if (done()) return true;
    }
  } while (__rdtsc() - start < ticks);
  return false;
}

// How long to poll for the other side of a conversation, learnt from whether polling helped. Alone on two CPUs it does,
// by a factor of 200. On a busy host the other side may wait for the very CPU that polls: then not polling, and a futex
// on one CPU, is best. So: success restores full patience, failure halves it, and once in a while the full length is
// tried again.
class Patience {
 public:
  explicit Patience(u64 longest_ticks) : longest_{longest_ticks}, now_{longest_ticks} {}

  template <class Done>
  bool wait(Done done) {
    const bool probe = now_ == 0 && ++waits_ % kProbeEvery == 0;
    const u64 ticks = probe ? longest_ : now_;
    const bool helped = poll_for(ticks, done);
    if (helped && ticks != 0)
      now_ = longest_;
    else if (!helped && !probe)
      now_ = now_ / 2 < kLeast ? 0 : now_ / 2;
    return helped;
  }

 private:
  static constexpr u32 kProbeEvery = 256;
  static constexpr u64 kLeast = 4'000;
  u64 longest_, now_;
  u32 waits_ = 0;
};

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
    return poll_for(limit(), done);
  }

 private:
  u64 longest_;
  u64 average_ = 0;
};

}  // namespace trapline::channel
