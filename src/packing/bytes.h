// Reading hostile bytes: a range that does not fit gives nothing, never a wrapped sum.
#pragma once

#include <cstring>
#include <optional>
#include <span>
#include <string_view>
#include <type_traits>

#include "base/types.h"

namespace trapline::packing {

using Bytes = std::span<const u8>;

inline std::optional<Bytes> slice(Bytes bytes, u64 offset, u64 size) {
  if (offset > bytes.size() || size > bytes.size() - offset) return std::nullopt;
  return bytes.subspan(offset, size);
}

// From `offset` to the end; empty when it lies beyond.
inline Bytes tail(Bytes bytes, u64 offset) { return offset > bytes.size() ? Bytes{} : bytes.subspan(offset); }

// Little endian, as all x86 files are.
template <class T>
std::optional<T> load(Bytes bytes, u64 offset) {
  static_assert(std::is_trivially_copyable_v<T>);
  const auto from = slice(bytes, offset, sizeof(T));
  if (!from) return std::nullopt;
  T value;
  std::memcpy(&value, from->data(), sizeof value);
  return value;
}

// An address-sized word, zero-extended.
inline std::optional<u64> load_word(Bytes bytes, u64 offset, unsigned width) {
  if (width == 8) return load<u64>(bytes, offset);
  if (const auto v = load<u32>(bytes, offset)) return u64{*v};
  return std::nullopt;
}

inline bool starts_with(Bytes bytes, std::string_view magic) {
  return bytes.size() >= magic.size() && std::memcmp(bytes.data(), magic.data(), magic.size()) == 0;
}

// The NUL-terminated string at `offset`; empty when it is not in the table or has no end there.
inline std::string_view string_at(Bytes table, u64 offset) {
  const Bytes from = tail(table, offset);
  const void* end = from.empty() ? nullptr : std::memchr(from.data(), 0, from.size());
  if (!end) return {};
  return {reinterpret_cast<const char*>(from.data()),
          static_cast<std::size_t>(static_cast<const u8*>(end) - from.data())};
}

}  // namespace trapline::packing
