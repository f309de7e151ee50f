// What the core may know of the chipset, so that reads which change nothing need no request: copies of device state
// from which values follow with the time. The monitor alone writes it, under the machine's lock, before it answers the
// access that changed something.
#pragma once

#include "devices/ioapic.h"
#include "devices/pit8254.h"
#include "devices/published.h"
#include "devices/rtc.h"
#include "devices/uart16550.h"

namespace trapline::machine {

struct alignas(kPageSize) DevicePage {
  devices::Published<devices::PitView> pit;
  devices::Published<devices::RtcState> rtc;
  devices::Published<devices::IoApicView> ioapic;
  devices::Published<devices::UartView> com1;
};
static_assert(sizeof(DevicePage) == kPageSize);

}  // namespace trapline::machine
