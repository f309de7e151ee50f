// Copies and comparisons of a few kilobytes, of which a stretch needs several.
#pragma once

#include <emmintrin.h>

#include <cstddef>

#include "base/types.h"

namespace trapline::engine::verify {

// The library's: what the compiler makes of a copy of known size is slower.
void copy(void* to, const void* from, std::size_t bytes);

inline constexpr u64 kLine = 64;

inline bool same_line(const u8* a, const u8* b) {
  __m128i difference = _mm_setzero_si128();
  for (unsigned i = 0; i < kLine; i += 16)
    difference = _mm_or_si128(difference, _mm_xor_si128(_mm_loadu_si128(reinterpret_cast<const __m128i*>(a + i)),
                                                        _mm_loadu_si128(reinterpret_cast<const __m128i*>(b + i))));
  return _mm_movemask_epi8(_mm_cmpeq_epi8(difference, _mm_setzero_si128())) == 0xffff;
}

}  // namespace trapline::engine::verify
