// What the core may know of the chipset, so that reads which change nothing need no request: copies of device state
// from which values follow with the time. The monitor alone writes it, under the machine's lock, before it answers the
// access that changed something.
#pragma once

#include <array>
#include <atomic>

#include "devices/ioapic.h"
#include "devices/pit8254.h"
#include "devices/published.h"
#include "devices/rtc.h"
#include "devices/uart16550.h"

namespace trapline::devices {

// Which ports below PCI's (1000 up) no device has: constant once it is known, which is before the guest runs.
struct FreePorts {
  static constexpr u32 kPorts = 0x1000;
  std::atomic<bool> known{false};
  std::array<u8, kPorts / 8> bits{};

  // Does nobody answer at any of them? Then reads are all ones, and writes are lost.
  bool all(u32 port, u32 size) const {
    if (port + size > kPorts || !known.load(std::memory_order_acquire)) return false;
    for (u32 p = port; p < port + size; p++)
      if (!(bits[p / 8] >> p % 8 & 1)) return false;
    return true;
  }
};

// Where virtio devices are notified (a doorbell of 4 bytes for each queue), or 0. What is written there is posted to the
// device's worker (channel/doorbell.h).
struct DoorbellView {
  static constexpr unsigned kMost = 31, kBytes = 4 * 64;
  std::array<Gpa, kMost> at{};
  bool operator==(const DoorbellView&) const = default;
};

struct alignas(kPageSize) DevicePage {
  Published<PitView> pit;
  Published<RtcState> rtc;
  Published<IoApicView> ioapic;
  Published<UartView> com1;
  Published<DoorbellView> doorbells;
  FreePorts free_ports;
};
static_assert(sizeof(DevicePage) == kPageSize);

}  // namespace trapline::devices
