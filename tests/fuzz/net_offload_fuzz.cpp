// Frames and headers of the input's choice, cut and put together: a guest's, and those of a network's other end. Nothing
// outside the frames is touched, what is sent is bounded by what came, and what was cut comes together again.
#include <algorithm>
#include <cstring>
#include <vector>

#include "base/invariant.h"
#include "devices/virtio/net_offload.h"

using namespace trapline;
using namespace trapline::devices::virtio;

// A header, then frames behind two bytes of length.
extern "C" int LLVMFuzzerTestOneInput(const u8* data, size_t size) {
  NetHeader header;
  if (size < sizeof header) return 0;
  std::memcpy(&header, data, sizeof header);
  std::span<const u8> rest{data + sizeof header, size - sizeof header};
  std::vector<std::vector<std::byte>> frames;
  while (rest.size() >= 2 && frames.size() < 64) {
    const std::size_t n = std::min<std::size_t>(rest.size() - 2, rest[0] | rest[1] << 8);
    const auto bytes = std::as_bytes(rest.subspan(2, n));
    frames.emplace_back(bytes.begin(), bytes.end());
    rest = rest.subspan(2 + n);
  }
  std::vector<std::span<const std::byte>> views(frames.begin(), frames.end());
  for (std::span<const std::span<const std::byte>> left{views}; !left.empty();) {
    NetHeader built;
    std::vector<std::byte> whole;
    const std::size_t count = coalesce(left, built, whole);
    INVARIANT(count >= 1 && count <= left.size(), "{} frames of {}", count, left.size());
    if (count > 1) {
      INVARIANT(whole.size() <= 65535 + 18, "{} bytes", whole.size());
      std::size_t cut = 0;
      const bool can_be = segment(built, whole, [&](auto) { cut++; });
      INVARIANT(can_be ? cut == count : built.segment_bytes < 48, "{} frames became {}", count, cut);
    }
    left = left.subspan(count);
  }
  for (std::vector<std::byte>& frame : frames) {
    (void)checksum_is_right(frame);
    std::size_t sent = 0, bytes = 0;
    segment(header, frame, [&](std::span<const iovec> pieces) {
      sent++;
      for (const iovec& v : pieces) bytes += v.iov_len;
    });
    INVARIANT(sent <= frame.size() / 48 + 1 && bytes <= frame.size() + 134 * sent, "{} bytes became {}", frame.size(),
              bytes);
    finish_checksum(header, frame);
  }
  return 0;
}
