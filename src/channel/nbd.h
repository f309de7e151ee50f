// The client's side of the NBD protocol (its doc/proto.md), as far as a disk needs it: fixed newstyle handshake, simple
// replies. The server works on what the guest and the image's maker wrote, so nothing that it says is believed. The
// monitor reads and writes a guest's disk by it, the process that looks for a kernel reads one.
#pragma once

#include <array>
#include <optional>
#include <string>

#include "base/result.h"
#include "base/types.h"

namespace trapline::channel::nbd {

struct Export {
  u64 bytes = 0;
  bool read_only = false, flushes = false, fua = false, trims = false, zeroes = false;
};
// Asks for the export without a name. Waits. Error: what is wrong.
Result<Export, std::string> shake_hands(int socket);

enum class Command : u16 { read = 0, write = 1, disconnect = 2, flush = 3, trim = 4, write_zeroes = 6 };
inline constexpr u16 kFua = 1, kNoHole = 2;
inline constexpr u64 kMostPayload = 16 * MiB;  // servers take 32 at least

struct Request {
  Command command;
  u16 flags = 0;
  u64 handle = 0, offset = 0;
  u32 length = 0;
};
using RequestBytes = std::array<u8, 28>;
RequestBytes encode(const Request& request);

struct Reply {
  u32 error = 0;  // an errno of Linux's
  u64 handle = 0;
};
inline constexpr std::size_t kReplyBytes = 16;
std::optional<Reply> decode(const std::array<u8, kReplyBytes>& bytes);  // nothing: not a reply

}  // namespace trapline::channel::nbd
