#include "packing/unpack.h"

#include <fmt/format.h>
#include <sys/mman.h>

namespace trapline::packing {

using namespace std::string_view_literals;

std::string Growing::too_large() const { return fmt::format("unpacks to more than {} MiB: refused", most_ / MiB); }

void expect_writes(void* at, u64 bytes) {
  constexpr u64 kHuge = 2 * MiB;
  const u64 from = (reinterpret_cast<u64>(at) + kHuge - 1) & ~(kHuge - 1);
  const u64 end = (reinterpret_cast<u64>(at) + bytes) & ~(kHuge - 1);
  if (at && from < end) static_cast<void>(::madvise(reinterpret_cast<void*>(from), end - from, MADV_HUGEPAGE));
}

Packing packing_of(Bytes bytes) {
  if (starts_with(bytes, "\x1f\x8b\x08"sv)) return Packing::gzip;
  if (starts_with(bytes,
                  "\xfd"
                  "7zXZ\0"sv))
    return Packing::xz;
  if (starts_with(bytes, "\x28\xb5\x2f\xfd"sv)) return Packing::zstd;
  if (starts_with(bytes, "\x02\x21\x4c\x18"sv) || starts_with(bytes, "\x04\x22\x4d\x18"sv)) return Packing::lz4;
  if (starts_with(bytes, "\x89LZO\0\r\n\x1a\n"sv)) return Packing::lzo;
  if (starts_with(bytes, "BZh"sv) && bytes.size() > 4 && bytes[3] >= '1' && bytes[3] <= '9' && bytes[4] == 0x31)
    return Packing::bzip2;
  // .lzma has no magic: properties, a power-of-two dictionary, then a size that is unknown or below 2^40.
  if (starts_with(bytes, "\x5d\0\0"sv) && bytes.size() > 13 && (bytes[12] == 0xff || bytes[12] == 0))
    return Packing::lzma;
  return Packing::none;
}

const char* name_of(Packing packing) {
  switch (packing) {
    case Packing::gzip:
      return "gzip";
    case Packing::xz:
      return "xz";
    case Packing::lzma:
      return "lzma";
    case Packing::zstd:
      return "zstd";
    case Packing::lz4:
      return "lz4";
    case Packing::lzo:
      return "lzo";
    case Packing::bzip2:
      return "bzip2";
    case Packing::none:
      break;
  }
  return "none";
}

Unpacked unpack(Packing packing, Bytes bytes, u64 most) {
  switch (packing) {
    case Packing::gzip:
      return unpackers::gzip(bytes, most);
    case Packing::xz:
    case Packing::lzma:
      return unpackers::xz(bytes, most);
    case Packing::zstd:
      return unpackers::zstd(bytes, most);
    case Packing::lz4:
      return unpackers::lz4(bytes, most);
    case Packing::lzo:
      return unpackers::lzo(bytes, most);
    case Packing::bzip2:
      return unpackers::bzip2(bytes, most);
    case Packing::none:
      break;
  }
  return Err{std::string{"is not compressed"}};
}

}  // namespace trapline::packing
