// Reading hostile images: every field goes through load() or slice(), which know where the bytes end.
#pragma once

#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>

#include <fmt/format.h>

#include "boot/boot.h"

namespace trapline::boot::loader {

// The `size` bytes at `offset`, or nothing if the image ends before them.
inline std::optional<Bytes> slice(Bytes image, u64 offset, u64 size) {
  if (offset > image.size() || size > image.size() - offset) return std::nullopt;
  return image.subspan(offset, size);
}

// A little-endian value at any alignment.
template <class T>
std::optional<T> load(Bytes image, u64 offset) {
  static_assert(std::is_trivially_copyable_v<T>);
  const auto at = slice(image, offset, sizeof(T));
  if (!at) return std::nullopt;
  T value;
  std::memcpy(&value, at->data(), sizeof(T));
  return value;
}

// The same where the caller has already checked the bounds; zero beyond them.
template <class T>
T load_or_zero(Bytes image, u64 offset) {
  return load<T>(image, offset).value_or(T{});
}

inline Bytes bytes_of(std::string_view text) { return std::as_bytes(std::span{text.data(), text.size()}); }

constexpr u64 align_down(u64 value, u64 alignment) { return value & ~(alignment - 1); }
// Nothing when the sum leaves 64 bits. `alignment` is a power of two.
constexpr std::optional<u64> align_up(u64 value, u64 alignment) {
  const u64 sum = value + (alignment - 1);
  return sum < value ? std::nullopt : std::optional{align_down(sum, alignment)};
}
constexpr Gpa align_down(Gpa value, u64 alignment) { return Gpa{align_down(value.raw, alignment)}; }
constexpr std::optional<Gpa> align_up(Gpa value, u64 alignment) {
  const auto raw = align_up(value.raw, alignment);
  return raw ? std::optional{Gpa{*raw}} : std::nullopt;
}
constexpr bool power_of_two(u64 value) { return value != 0 && (value & (value - 1)) == 0; }

// "9.3 MiB", "512 bytes": for messages.
std::string human_size(u64 bytes);
// "give --memory 128M or more": the smallest round size that has `needed` bytes of RAM.
std::string memory_remedy(u64 needed);

}  // namespace trapline::boot::loader
