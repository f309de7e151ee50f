// LZ4: frames by liblz4, and the legacy format that kernels use: a magic number, then blocks of a 32-bit size and that
// many bytes, each block 8 MiB unpacked but the last.
#include <fmt/format.h>
#include <lz4.h>
#include <lz4frame.h>

#include <memory>

#include "packing/unpack.h"

namespace trapline::packing::unpackers {

namespace {

constexpr u32 kLegacyMagic = 0x184c2102;
constexpr u64 kLegacyBlock = 8 * MiB;

// At least what comes out, so that the output does not move as it grows; no page of it is touched before its time.
u64 legacy_bound(Bytes bytes, u64 most) {
  u64 blocks = 0;
  for (u64 at = 4; at + 4 < bytes.size() && blocks * kLegacyBlock < most; blocks++)
    at += 4 + u64{*load<u32>(bytes, at)};
  return std::min(most, blocks * kLegacyBlock);
}

Unpacked legacy(Bytes bytes, u64 most) {
  std::vector<u8> out, block(kLegacyBlock);
  out.reserve(legacy_bound(bytes, most));
  expect_writes(out.data(), out.capacity());
  for (u64 at = 4; bytes.size() - at > 4;) {
    const u32 size = *load<u32>(bytes, at);
    at += 4;
    if (size == kLegacyMagic) continue;  // streams may follow each other
    const auto packed = slice(bytes, at, size);
    // A size that cannot be: the payload's trailer, if anything has come before it.
    if (size == 0 || size > static_cast<u32>(LZ4_COMPRESSBOUND(kLegacyBlock)) || !packed) {
      if (out.empty() || (packed && size != 0)) return Err{std::string{"lz4: malformed block size"}};
      if (!packed && bytes.size() - at > 8) return Err{std::string{"lz4: truncated"}};
      break;
    }
    const int n =
        ::LZ4_decompress_safe(reinterpret_cast<const char*>(packed->data()), reinterpret_cast<char*>(block.data()),
                              static_cast<int>(size), static_cast<int>(block.size()));
    if (n < 0) return Err{std::string{"lz4: malformed block"}};
    if (out.size() + static_cast<u64>(n) > most) return Err{Growing{most}.too_large()};
    out.insert(out.end(), block.begin(), block.begin() + n);
    at += size;
    if (static_cast<u64>(n) < kLegacyBlock) break;
  }
  if (out.empty()) return Err{std::string{"lz4: truncated"}};
  return out;
}

}  // namespace

Unpacked lz4(Bytes bytes, u64 most) {
  if (load<u32>(bytes, 0) == kLegacyMagic) return legacy(bytes, most);
  LZ4F_dctx* raw = nullptr;
  if (::LZ4F_isError(::LZ4F_createDecompressionContext(&raw, LZ4F_VERSION))) return Err{std::string{"lz4: no memory"}};
  const std::unique_ptr<LZ4F_dctx, decltype(&LZ4F_freeDecompressionContext)> z{raw, LZ4F_freeDecompressionContext};
  Growing out{most};
  for (std::size_t at = 0;;) {
    const auto room = out.room();
    if (room.empty()) return Err{out.too_large()};
    std::size_t produced = room.size(), consumed = bytes.size() - at;
    const std::size_t left = ::LZ4F_decompress(z.get(), room.data(), &produced, bytes.data() + at, &consumed, nullptr);
    if (::LZ4F_isError(left)) return Err{fmt::format("lz4: {}", ::LZ4F_getErrorName(left))};
    at += consumed;
    out.used(produced);
    if (left == 0) return out.take();
    if (consumed == 0 && produced == 0) return Err{std::string{"lz4: truncated"}};
  }
}

}  // namespace trapline::packing::unpackers
