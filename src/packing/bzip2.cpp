#include <bzlib.h>

#include "packing/unpack.h"

namespace trapline::packing::unpackers {

Unpacked bzip2(Bytes bytes, u64 most) {
  bz_stream z{};
  if (::BZ2_bzDecompressInit(&z, 0, 0) != BZ_OK) return Err{std::string{"bzip2: no memory"}};
  Growing out{most};
  std::string wrong;
  z.next_in = const_cast<char*>(reinterpret_cast<const char*>(bytes.data()));
  z.avail_in = static_cast<unsigned>(std::min<u64>(bytes.size(), ~0u));
  for (int status = BZ_OK; wrong.empty() && status != BZ_STREAM_END;) {
    const auto room = out.room();
    if (room.empty()) wrong = out.too_large();
    z.next_out = reinterpret_cast<char*>(room.data());
    z.avail_out = static_cast<unsigned>(std::min<u64>(room.size(), 1 * GiB));
    const unsigned before = z.avail_out, in_before = z.avail_in;
    if (wrong.empty()) status = ::BZ2_bzDecompress(&z);
    out.used(before - z.avail_out);
    if (!wrong.empty()) break;
    if (status != BZ_OK && status != BZ_STREAM_END) wrong = "bzip2: malformed";
    if (status == BZ_OK && before == z.avail_out && in_before == z.avail_in) wrong = "bzip2: truncated";
  }
  ::BZ2_bzDecompressEnd(&z);
  if (!wrong.empty()) return Err{wrong};
  return out.take();
}

}  // namespace trapline::packing::unpackers
