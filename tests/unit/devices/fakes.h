// What devices are given in tests: a wire that remembers, a clock that is set by hand.
#pragma once

#include "devices/device.h"

namespace trapline::devices {

struct FakeLine final : IrqLine {
  void set(bool value) override {
    rises += value && !up;
    up = value;
  }
  bool up = false;
  unsigned rises = 0;
};

struct FakeTime final : TimeSource {
  u64 now_ns() const override { return ns; }
  u64 wall_clock_seconds() const override { return wall; }
  u64 ns = 1'000'000;
  u64 wall = 1'700'000'000;  // 2023-11-14 22:13:20 UTC, a Tuesday
};

inline constexpr u64 kMs = 1'000'000, kSecondNs = 1'000'000'000;

}  // namespace trapline::devices
