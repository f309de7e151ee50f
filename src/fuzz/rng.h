// A small, fast generator whose whole state is one seed: a sequence is remade from its number alone.
#pragma once

#include <cstddef>

#include "base/types.h"

namespace trapline::fuzz {

// splitmix64 (Steele, Lea, Flood 2014).
class Rng {
 public:
  explicit Rng(u64 seed) : state_{mix(mix(seed) ^ 0x632be59bd9b4e019)} {}  // neighbours must not share a stream
  u64 next() { return mix(state_ += 0x9e3779b97f4a7c15); }
  u64 below(u64 n) { return static_cast<u64>(static_cast<u128>(next()) * n >> 64); }
  bool percent(unsigned p) { return below(100) < p; }
  template <class T, std::size_t N>
  const T& pick(const T (&items)[N]) {
    return items[below(N)];
  }

 private:
  static constexpr u64 mix(u64 z) {
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
  }
  u64 state_;
};

}  // namespace trapline::fuzz
