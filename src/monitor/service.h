// The monitor's side of the request channel: what a vCPU asks is checked and done on the chipset.
#pragma once

#include "channel/channel.h"
#include "machine/chipset.h"

namespace trapline::monitor {

// Does one request. `request` is a copy nobody else can change; `bulk` is shared with the core (read or written once
// per item). False: no such request, or its fields are out of range; then nothing was done and `value` is all ones.
bool serve(machine::Chipset& chipset, const channel::Request& request, u8* bulk, u64* value);

}  // namespace trapline::monitor
