// What the host takes of a turn in a cage for a trap: delivery of the signal, and the first touch of what has just been
// mapped. It lies between the stub's two stamps, and looks like time in the guest. It is learnt: turns that did nothing
// but trap again show it, and there are many of them.
#pragma once

#include <algorithm>

#include "base/types.h"

namespace trapline::engine::patch {

class TrapCost {
 public:
  // In host TSC ticks. least: the first guess; most: what a turn of a program that computes is taken for at most.
  TrapCost(u64 least, u64 most) : least_{least}, most_{most}, ticks_{least} {}

  u64 ticks() const { return ticks_; }
  // A turn of so many ticks has ended by this trap. Follows the 15th percentile.
  void observe(u64 turn) {
    const u64 step = ticks_ / 8 + 1;
    ticks_ = turn < ticks_ ? ticks_ - step * 85 / 100 : ticks_ + step * 15 / 100;
    ticks_ = std::clamp(ticks_, least_, most_);
  }

 private:
  u64 least_, most_, ticks_;
};

}  // namespace trapline::engine::patch
