// Compressed data for tests, made by the libraries themselves.
#pragma once

#include <bzlib.h>
#include <lz4.h>
#include <lz4frame.h>
#include <lzma.h>
#include <lzo/lzo1x.h>
#include <zlib.h>
#include <zstd.h>

#include <string>
#include <vector>

#include "unit/scan/elf_builder.h"

namespace trapline::scan::testing {

using Blob = std::vector<u8>;

inline Blob pack_gzip(const Blob& in) {
  z_stream z{};
  deflateInit2(&z, 9, Z_DEFLATED, 16 + MAX_WBITS, 9, Z_DEFAULT_STRATEGY);
  Blob out(deflateBound(&z, in.size()) + 64);
  z.next_in = const_cast<u8*>(in.data()), z.avail_in = static_cast<uInt>(in.size());
  z.next_out = out.data(), z.avail_out = static_cast<uInt>(out.size());
  deflate(&z, Z_FINISH);
  out.resize(z.total_out);
  deflateEnd(&z);
  return out;
}

inline Blob pack_xz(const Blob& in) {
  Blob out(lzma_stream_buffer_bound(in.size()));
  std::size_t n = 0;
  lzma_easy_buffer_encode(6, LZMA_CHECK_CRC32, nullptr, in.data(), in.size(), out.data(), &n, out.size());
  out.resize(n);
  return out;
}

inline Blob pack_zstd(const Blob& in) {
  Blob out(ZSTD_compressBound(in.size()));
  out.resize(ZSTD_compress(out.data(), out.size(), in.data(), in.size(), 3));
  return out;
}

inline Blob pack_lz4(const Blob& in) {
  Blob out(LZ4F_compressFrameBound(in.size(), nullptr));
  out.resize(LZ4F_compressFrame(out.data(), out.size(), in.data(), in.size(), nullptr));
  return out;
}

// As the kernel's build does it: one block, then the size of what it unpacks to.
inline Blob pack_lz4_legacy(const Blob& in) {
  Blob block(static_cast<std::size_t>(LZ4_compressBound(static_cast<int>(in.size()))));
  block.resize(static_cast<std::size_t>(
      LZ4_compress_default(reinterpret_cast<const char*>(in.data()), reinterpret_cast<char*>(block.data()),
                           static_cast<int>(in.size()), static_cast<int>(block.size()))));
  Blob out;
  put<u32>(out, 0x184c2102), put<u32>(out, static_cast<u32>(block.size()));
  put(out, block.data(), block.size());
  put<u32>(out, static_cast<u32>(in.size()));
  return out;
}

inline Blob pack_bzip2(const Blob& in) {
  unsigned n = static_cast<unsigned>(in.size() + in.size() / 50 + 700);
  Blob out(n);
  BZ2_bzBuffToBuffCompress(reinterpret_cast<char*>(out.data()), &n,
                           const_cast<char*>(reinterpret_cast<const char*>(in.data())),
                           static_cast<unsigned>(in.size()), 9, 0, 0);
  out.resize(n);
  return out;
}

inline Blob pack_lzo(const Blob& in) {
  const auto big = [](Blob& out, u32 v, int bytes) {
    for (int i = bytes - 1; i >= 0; i--) out.push_back(static_cast<u8>(v >> i * 8));
  };
  Blob block(in.size() + in.size() / 16 + 67), work(LZO1X_1_MEM_COMPRESS);
  lzo_uint n = block.size();
  lzo_init();
  lzo1x_1_compress(in.data(), in.size(), block.data(), &n, work.data());
  Blob out;
  put(out, "\x89LZO\0\r\n\x1a\n", 9);
  big(out, 0x1030, 2), big(out, 0x20a0, 2), big(out, 0x940, 2);
  big(out, 1, 1), big(out, 9, 1), big(out, 0x1 /* Adler-32 of the data */, 4);
  big(out, 0, 4), big(out, 0, 4), big(out, 0, 4), big(out, 0, 1), big(out, 0, 4);
  big(out, static_cast<u32>(in.size()), 4), big(out, static_cast<u32>(n), 4), big(out, 0, 4);
  put(out, block.data(), n);
  big(out, 0, 4);
  return out;
}

}  // namespace trapline::scan::testing
