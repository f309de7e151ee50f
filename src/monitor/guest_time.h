// Guest time as the devices see it, and how fast the host's TSC runs.
#pragma once

#include <time.h>
#include <x86intrin.h>

#include <algorithm>

#include "base/scaled.h"
#include "base/types.h"
#include "devices/device.h"

namespace trapline::monitor {

// Measures the TSC's frequency while the VM is being set up: begin(), other work, then khz(), which waits out the rest
// of 10 ms.
class TscMeasurement {
 public:
  void begin();
  u64 khz();

 private:
  u64 tsc_ = 0, ns_ = 0;
};

class GuestTime final : public devices::TimeSource {
 public:
  // Real: nanoseconds since start() by the host's TSC. Until then 0: the devices are built first and note the time they
  // begin at.
  void start(u64 tsc_khz) {
    khz_ = tsc_khz;
    origin_ = __rdtsc();
  }
  // --clock instructions: the core says what time it is. Guest time never goes back and never comes near the end of 64
  // bits.
  static GuestTime by_instructions(u64 wall_clock_base) {
    GuestTime time;
    time.instructions_ = true;
    time.wall_base_ = wall_clock_base;
    return time;
  }
  void advance(u64 now_ns) { now_ = std::max(now_, std::min(now_ns, u64{1} << 62)); }

  u64 origin() const { return origin_; }
  u64 now_ns() const override {
    if (instructions_ || khz_ == 0) return now_;
    return scaled(__rdtsc() - origin_, 1'000'000, khz_);
  }
  u64 wall_clock_seconds() const override {
    return instructions_ ? wall_base_ + now_ / 1'000'000'000 : static_cast<u64>(::time(nullptr));
  }

 private:
  bool instructions_ = false;
  u64 khz_ = 0, origin_ = 0, now_ = 0, wall_base_ = 0;
};

}  // namespace trapline::monitor
