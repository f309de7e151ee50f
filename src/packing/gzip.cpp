// RFC 1952, by zlib.
#include <fmt/format.h>
#include <zlib.h>

#include "packing/unpack.h"

namespace trapline::packing::unpackers {

Unpacked gzip(Bytes bytes, u64 most) {
  z_stream z{};
  if (::inflateInit2(&z, 16 + MAX_WBITS) != Z_OK) return Err{std::string{"gzip: no memory"}};
  Growing out{most};
  std::string wrong;
  z.next_in = const_cast<u8*>(bytes.data());
  z.avail_in = static_cast<uInt>(std::min<u64>(bytes.size(), ~uInt{0}));
  for (int status = Z_OK; wrong.empty() && status != Z_STREAM_END;) {
    const auto room = out.room();
    z.next_out = room.data();
    z.avail_out = static_cast<uInt>(std::min<u64>(room.size(), 1 * GiB));
    if (room.empty()) wrong = out.too_large();
    const uInt before = z.avail_out;
    if (wrong.empty()) status = ::inflate(&z, Z_NO_FLUSH);
    out.used(before - z.avail_out);
    if (status != Z_OK && status != Z_STREAM_END)
      wrong = fmt::format("gzip: {}", status == Z_BUF_ERROR ? "truncated" : z.msg ? z.msg : "malformed");
  }
  ::inflateEnd(&z);
  if (!wrong.empty()) return Err{wrong};
  return out.take();
}

}  // namespace trapline::packing::unpackers
