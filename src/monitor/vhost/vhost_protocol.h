// The vhost-user protocol as the front end speaks it: numbers and layouts (QEMU's docs/interop/vhost-user.rst; the
// names are its). All integers are the host's.
#pragma once

#include <array>

#include "base/types.h"

namespace trapline::monitor::vhost {

enum class Command : u32 {
  get_features = 1,
  set_features = 2,
  set_owner = 3,
  set_mem_table = 5,
  set_vring_num = 8,
  set_vring_addr = 9,
  set_vring_base = 10,
  get_vring_base = 11,
  set_vring_kick = 12,
  set_vring_call = 13,
  get_protocol_features = 15,
  set_protocol_features = 16,
  get_queue_num = 17,
  set_vring_enable = 18,
  get_config = 24
};
const char* name_of(Command command);

struct Header {
  u32 command;
  u32 flags;
  u32 bytes;  // of the payload
};
static_assert(sizeof(Header) == 12);
inline constexpr u32 kVersion = 1, kVersionMask = 3, kReply = 1 << 2, kNeedReply = 1 << 3;

// Of GET_FEATURES, beside those of virtio.
inline constexpr u64 kProtocolFeatures = u64{1} << 30;

namespace protocol_feature {
inline constexpr u64 multi_queue = 1 << 0, reply_ack = 1 << 3, config = 1 << 9;
}

struct Region {
  u64 guest_address, bytes, user_address, file_offset;
};
struct MemoryTable {
  static constexpr u32 kMost = 3;  // RAM below 3 GiB, RAM above 4 GiB, the rings; the protocol allows 8
  u32 count = 0, padding = 0;
  std::array<Region, kMost> regions{};
};
static_assert(sizeof(MemoryTable) == 8 + 32 * MemoryTable::kMost);

struct RingState {
  u32 index, number;
};
struct RingAddress {
  u32 index, flags;
  u64 descriptors, used, available, log;
};
static_assert(sizeof(RingAddress) == 40);

// GET_CONFIG: this, and so many bytes behind it.
struct ConfigHeader {
  u32 offset, bytes, flags;
};
inline constexpr u32 kMostConfig = 256;

}  // namespace trapline::monitor::vhost
