// Numbers that a cage cannot guess: SipHash-2-4 of a counter (Aumasson and Bernstein, "SipHash: a fast short-input PRF",
// 2012), for the tokens by which it proves that it has carried out orders.
#pragma once

#include <bit>

#include "base/types.h"

namespace trapline::cage {

class Tokens {
 public:
  Tokens() = default;
  Tokens(u64 key0, u64 key1) : key0_{key0}, key1_{key1} {}
  u64 next() { return hash(++count_); }
  // Of one 64-bit word, as little-endian bytes.
  u64 hash(u64 word) const {
    u64 v0 = key0_ ^ 0x736f6d6570736575, v1 = key1_ ^ 0x646f72616e646f6d, v2 = key0_ ^ 0x6c7967656e657261,
        v3 = key1_ ^ 0x7465646279746573;
    const auto round = [&] {
      v0 += v1, v1 = std::rotl(v1, 13) ^ v0, v0 = std::rotl(v0, 32);
      v2 += v3, v3 = std::rotl(v3, 16) ^ v2;
      v0 += v3, v3 = std::rotl(v3, 21) ^ v0;
      v2 += v1, v1 = std::rotl(v1, 17) ^ v2, v2 = std::rotl(v2, 32);
    };
    const auto absorb = [&](u64 m) { v3 ^= m, round(), round(), v0 ^= m; };
    absorb(word);
    absorb(u64{8} << 56);
    v2 ^= 0xff;
    for (int i = 0; i < 4; i++) round();
    return v0 ^ v1 ^ v2 ^ v3;
  }

 private:
  u64 key0_ = 0, key1_ = 0, count_ = 0;
};

}  // namespace trapline::cage
