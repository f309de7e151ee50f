// The header before each frame of a network device: VIRTIO 1.2, 5.1.6. TAP interfaces have the same (IFF_VNET_HDR, of
// twelve bytes).
#pragma once

#include "base/types.h"

namespace trapline::devices::virtio {

struct NetHeader {
  u8 flags = 0, segmentation = 0;
  u16 header_bytes = 0, segment_bytes = 0, checksum_start = 0, checksum_offset = 0;
  u16 buffers = 0;
};
static_assert(sizeof(NetHeader) == 12);

namespace net_flag {
inline constexpr u8 needs_checksum = 1, data_valid = 2;
}
namespace net_segmentation {
inline constexpr u8 none = 0, tcp4 = 1, tcp6 = 4, ecn = 0x80;  // the last beside one of the others
}

}  // namespace trapline::devices::virtio
