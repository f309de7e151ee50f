// .xz and .lzma, by liblzma. Its memory is bounded too: a dictionary may be 4 GiB.
#include <lzma.h>

#include "packing/unpack.h"

namespace trapline::packing::unpackers {

namespace {

constexpr u64 kMemory = 256 * MiB;

std::string reason(lzma_ret status) {
  switch (status) {
    case LZMA_MEMLIMIT_ERROR:
      return "xz: needs more than 256 MiB to unpack";
    case LZMA_MEM_ERROR:
      return "xz: no memory";
    case LZMA_BUF_ERROR:
      return "xz: truncated";
    case LZMA_OPTIONS_ERROR:
      return "xz: unsupported filter";
    default:
      return "xz: malformed";
  }
}

}  // namespace

Unpacked xz(Bytes bytes, u64 most) {
  lzma_stream z = LZMA_STREAM_INIT;
  if (::lzma_auto_decoder(&z, kMemory, 0) != LZMA_OK) return Err{std::string{"xz: no memory"}};
  Growing out{most};
  std::string wrong;
  z.next_in = bytes.data();
  z.avail_in = bytes.size();
  for (lzma_ret status = LZMA_OK; wrong.empty() && status != LZMA_STREAM_END;) {
    const auto room = out.room();
    z.next_out = room.data();
    z.avail_out = room.size();
    if (room.empty()) wrong = out.too_large();
    if (wrong.empty()) status = ::lzma_code(&z, z.avail_in ? LZMA_RUN : LZMA_FINISH);
    out.used(room.size() - z.avail_out);
    if (wrong.empty() && status != LZMA_OK && status != LZMA_STREAM_END) wrong = reason(status);
  }
  ::lzma_end(&z);
  if (!wrong.empty()) return Err{wrong};
  return out.take();
}

}  // namespace trapline::packing::unpackers
