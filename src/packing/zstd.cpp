// RFC 8878, by libzstd. Window logs up to its default limit (128 MiB).
#include <fmt/format.h>
#include <zstd.h>

#include <memory>

#include "packing/unpack.h"

namespace trapline::packing::unpackers {

Unpacked zstd(Bytes bytes, u64 most) {
  const std::unique_ptr<ZSTD_DStream, decltype(&ZSTD_freeDStream)> z{ZSTD_createDStream(), ZSTD_freeDStream};
  if (!z) return Err{std::string{"zstd: no memory"}};
  Growing out{most};
  ZSTD_inBuffer in{bytes.data(), bytes.size(), 0};
  for (;;) {
    const auto room = out.room();
    if (room.empty()) return Err{out.too_large()};
    ZSTD_outBuffer to{room.data(), room.size(), 0};
    const std::size_t left = ZSTD_decompressStream(z.get(), &to, &in);
    if (ZSTD_isError(left)) return Err{fmt::format("zstd: {}", ZSTD_getErrorName(left))};
    out.used(to.pos);
    if (left == 0) return out.take();
    if (in.pos == in.size && to.pos < to.size) return Err{std::string{"zstd: truncated"}};
  }
}

}  // namespace trapline::packing::unpackers
