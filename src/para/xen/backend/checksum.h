// What a front end leaves to its back end: the TCP or UDP checksum of a frame that it calls blank (NETTXF_csum_blank).
#pragma once

#include <span>

#include "base/types.h"

namespace trapline::para::xen {

// An Ethernet frame with IPv4, RFC 791, 793, 768. False: it has no such checksum, or is cut short; it is as it was.
bool fill_checksum(std::span<u8> frame);

}  // namespace trapline::para::xen
