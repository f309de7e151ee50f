// What driver and device lay out in guest memory, and the numbers they agree on. VIRTIO 1.2: 2.1 (status), 2.7 (split
// rings), 2.8 (packed rings), 6 (features).
#pragma once

#include "base/addr.h"

namespace trapline::devices::virtio {

namespace status {
inline constexpr u8 acknowledge = 1, driver = 2, driver_ok = 4, features_ok = 8, needs_reset = 64, failed = 128;
}

namespace feature {
inline constexpr u64 indirect_desc = u64{1} << 28, event_index = u64{1} << 29, version_1 = u64{1} << 32,
                     ring_packed = u64{1} << 34;
// What the rings here can do: every device offers it, and own_bits (0..23, 50..127) of its own.
inline constexpr u64 of_rings = indirect_desc | event_index | version_1 | ring_packed;
}  // namespace feature

namespace descriptor_flag {
inline constexpr u16 next = 1, write = 2, indirect = 4;
inline constexpr u16 avail = 1 << 7, used = 1 << 15;  // packed rings
}  // namespace descriptor_flag

// Split ring: the descriptor table, and those an indirect descriptor points to.
struct Descriptor {
  Gpa address;
  u32 length;
  u16 flags;
  u16 next;
};
static_assert(sizeof(Descriptor) == 16);

// Packed ring: the one table of both directions.
struct PackedDescriptor {
  Gpa address;
  u32 length;
  u16 id;
  u16 flags;
};
static_assert(sizeof(PackedDescriptor) == 16);

struct UsedElement {
  u32 id;
  u32 length;
};
static_assert(sizeof(UsedElement) == 8);

// The split ring's available and used areas: flags, index, entries, then the other side's event index.
inline constexpr u64 kRingFlags = 0, kRingIndex = 2, kRingEntries = 4;
inline constexpr u16 kNoInterrupt = 1;  // avail.flags
inline constexpr u16 kNoNotify = 1;     // used.flags

// Packed ring: event suppression areas.
struct EventSuppression {
  u16 position;  // 14:0 offset, 15 wrap counter
  u16 flags;
};
inline constexpr u16 kEventsOn = 0, kEventsOff = 1, kEventsAt = 2;

inline constexpr u16 kLargestQueue = 1024;  // the specification allows 32768; nobody asks for so many
inline constexpr unsigned kMostQueues = 64;

}  // namespace trapline::devices::virtio
