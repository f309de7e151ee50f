// Compressed data of the kinds that kernels and modules come in, each by its library. Output is bounded: what grows
// beyond the limit is refused, not kept. The bytes are hostile.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "packing/bytes.h"

namespace trapline::packing {

enum class Packing : u8 { none, gzip, xz, lzma, zstd, lz4, lzo, bzip2 };

// By the first bytes.
Packing packing_of(Bytes bytes);
const char* name_of(Packing packing);

using Unpacked = Result<std::vector<u8>, std::string>;
// At most `most` bytes come out. The first stream in `bytes`; what follows it is ignored (a bzImage's payload ends in
// the size of its content).
Unpacked unpack(Packing packing, Bytes bytes, u64 most);

// Memory of our own that is about to be filled: the host may give it in huge pages, which costs it far fewer faults.
void expect_writes(void* at, u64 bytes);

namespace unpackers {
Unpacked gzip(Bytes bytes, u64 most);
Unpacked xz(Bytes bytes, u64 most);  // .xz and .lzma
Unpacked zstd(Bytes bytes, u64 most);
Unpacked lz4(Bytes bytes, u64 most);  // frames, and the legacy format of kernels
Unpacked lzo(Bytes bytes, u64 most);  // lzop
Unpacked bzip2(Bytes bytes, u64 most);
}  // namespace unpackers

// An output that a stream decoder fills piece by piece.
class Growing {
 public:
  explicit Growing(u64 most) : most_{most} {}
  // Room for at least one byte more; empty when the limit is reached.
  std::span<u8> room() {
    if (used_ == bytes_.size()) bytes_.resize(std::min<u64>(most_, std::max<u64>(bytes_.size() * 2, 256 * KiB)));
    return {bytes_.data() + used_, bytes_.size() - used_};
  }
  void used(std::size_t n) { used_ += n; }
  std::vector<u8> take() {
    bytes_.resize(used_);
    return std::move(bytes_);
  }
  std::string too_large() const;

 private:
  std::vector<u8> bytes_;
  std::size_t used_ = 0;
  u64 most_;
};

}  // namespace trapline::packing
