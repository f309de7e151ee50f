// What a device is given and what it offers: a plain state machine on offsets, with its interrupt line, clock and
// backend handed to the constructor. Its test is three fakes and a register sequence. Callers hold the machine's lock:
// devices have none.
#pragma once

#include <limits>

#include "base/types.h"

namespace trapline::devices {

// A wire to an interrupt controller. Level semantics; edges are what the controller makes of them.
struct IrqLine {
  virtual ~IrqLine() = default;
  virtual void set(bool up) = 0;
  // Would anybody see the line rise now? While nobody would, a device may be late with it: see Chipset::deadline_ns().
  virtual bool rise_matters() const { return true; }
  void pulse() {
    set(true);
    set(false);
  }
};

// Guest time in nanoseconds since power-on. Devices never read a host clock.
struct TimeSource {
  virtual ~TimeSource() = default;
  virtual u64 now_ns() const = 0;
  virtual u64 wall_clock_seconds() const = 0;  // seconds since 1970 UTC, for the RTC
};

inline constexpr u64 kNever = std::numeric_limits<u64>::max();

// Base: port or memory device; offsets are relative to the range it was registered for; size 1, 2, 4 (8 for memory).
struct Device {
  virtual ~Device() = default;
  virtual const char* name() const = 0;
  virtual u64 read(u64 offset, unsigned size) = 0;
  virtual void write(u64 offset, unsigned size, u64 value) = 0;
  // The device's next timed event (guest ns), and its arrival. tick() is called at or after the deadline.
  virtual u64 deadline_ns() const { return kNever; }
  virtual void tick() {}
  virtual void reset() = 0;
};

}  // namespace trapline::devices
