// What a driver leaves to its network device when it sends, done here for wires that take plain frames alone: a checksum
// (RFC 1071), and TCP segments of more than the wire takes, which are cut into frames; and what it leaves to the device
// when it receives: whether a checksum is right.
//
// Frames are the guest's: whatever they hold, the work is bounded by their length.
#pragma once

#include <sys/uio.h>

#include <functional>
#include <span>
#include <vector>

#include "devices/virtio/net_header.h"

namespace trapline::devices::virtio {

// The ones' complement sum of some bytes, of any length; the last of an odd number counts as if a zero came after it.
// Byte order: that of the bytes.
u16 ones_sum(std::span<const std::byte> bytes, u32 start = 0);

// Writes the checksum that the header asks for. False: it asks for what is not in the frame.
bool finish_checksum(const NetHeader& header, std::span<std::byte> frame);

// A large TCP segment as frames for the wire, each in two pieces: headers, and a part of `frame`. False: the header and the
// frame do not belong together; nothing was sent.
bool segment(const NetHeader& header, std::span<std::byte> frame,
             const std::function<void(std::span<const iovec>)>& send);

// How many of these frames, from the first on, are parts of one TCP stream in their order, right in all their sums, and
// alike in all but what segment() would make of them; more than one is built into `whole`, with its header. 64 KiB at
// most.
std::size_t coalesce(std::span<const std::span<const std::byte>> frames, NetHeader& header,
                     std::vector<std::byte>& whole);

// Is this TCP or UDP in a whole IP packet, with the right checksum?
bool checksum_is_right(std::span<const std::byte> frame);

}  // namespace trapline::devices::virtio
