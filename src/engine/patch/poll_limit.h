// How long the core polls for a cage that runs, on a CPU to spare: at least for what waking it would cost (some 100 us
// where idle CPUs of a virtual host are slow to wake, which a program pays at each stop), and up to `most` while turns
// are so short that polling can be expected to see their end. Turns of programs that compute are long, and polled for no
// longer than ever.
#pragma once

#include <algorithm>

#include "base/types.h"

namespace trapline::engine::patch {

class PollLimit {
 public:
  // In host TSC ticks.
  PollLimit(u64 least, u64 most) : least_{least}, most_{most}, expected_{most} {}

  u64 ticks() const { return 2 * expected_ > most_ ? least_ : std::max(least_, 2 * expected_); }
  // The guest has run for so long.
  void observe(u64 turn) { expected_ += std::min(turn, 2 * most_) / 8, expected_ -= expected_ / 8; }

 private:
  u64 least_, most_, expected_;
};

}  // namespace trapline::engine::patch
