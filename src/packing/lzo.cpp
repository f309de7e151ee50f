// lzop, as `lzop -9` writes it and kernels embed it: a header, then blocks of (size, packed size, checksums, data), all
// big-endian, ended by a size of 0. The header's checksum and names are not looked at.
#include <lzo/lzo1x.h>

#include "packing/unpack.h"

namespace trapline::packing::unpackers {

namespace {

constexpr u32 kMostBlock = 64 * MiB;
constexpr u32 kAdler32D = 1, kAdler32C = 2, kExtraField = 0x40, kCrc32D = 0x100, kCrc32C = 0x200, kFilter = 0x800;

class Reader {
 public:
  explicit Reader(Bytes bytes) : bytes_{bytes} {}
  u32 word(unsigned size) {  // big-endian; 0 and bad() beyond the end
    const auto from = take(size);
    u32 value = 0;
    for (u8 b : from) value = value << 8 | b;
    return value;
  }
  Bytes take(u64 size) {
    const auto from = slice(bytes_, at_, size);
    if (!from) {
      bad_ = true;
      return {};
    }
    at_ += size;
    return *from;
  }
  bool bad() const { return bad_; }

 private:
  Bytes bytes_;
  u64 at_ = 0;
  bool bad_ = false;
};

u32 read_header(Reader& r) {  // the flags
  r.take(9);
  const u32 version = r.word(2);
  r.take(2);
  if (version >= 0x940) r.take(2);
  r.take(1);
  if (version >= 0x940) r.take(1);
  const u32 flags = r.word(4);
  if (flags & kFilter) r.take(4);
  r.take(8);  // mode, time
  if (version >= 0x940) r.take(4);
  r.take(r.word(1));  // the name
  r.take(4);          // checksum
  if (flags & kExtraField) {
    r.take(r.word(4));
    r.take(4);
  }
  return flags;
}

}  // namespace

Unpacked lzo(Bytes bytes, u64 most) {
  if (::lzo_init() != LZO_E_OK) return Err{std::string{"lzo: the library does not fit this build"}};
  Reader r{bytes};
  const u32 flags = read_header(r);
  std::vector<u8> out;
  while (!r.bad()) {
    const u32 size = r.word(4);
    if (r.bad()) break;
    if (size == 0) return out;
    const u32 packed_size = r.word(4);
    if (size > kMostBlock || packed_size > size) return Err{std::string{"lzo: malformed block"}};
    if (out.size() + size > most) return Err{Growing{most}.too_large()};
    for (u32 sum : {kAdler32D, kCrc32D})
      if (flags & sum) r.take(4);
    for (u32 sum : {kAdler32C, kCrc32C})
      if ((flags & sum) && packed_size < size) r.take(4);
    const Bytes packed = r.take(packed_size);
    if (r.bad()) break;
    if (packed_size == size) {
      out.insert(out.end(), packed.begin(), packed.end());
      continue;
    }
    std::vector<u8> block(size);
    lzo_uint n = size;
    if (::lzo1x_decompress_safe(packed.data(), packed.size(), block.data(), &n, nullptr) != LZO_E_OK || n != size)
      return Err{std::string{"lzo: malformed block"}};
    out.insert(out.end(), block.begin(), block.end());
  }
  return Err{std::string{"lzo: truncated"}};
}

}  // namespace trapline::packing::unpackers
