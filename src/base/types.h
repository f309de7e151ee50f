// Fixed-width integers by the names used throughout, and the page size.
#pragma once

#include <cstddef>
#include <cstdint>

namespace trapline {

using u8 = std::uint8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;
using i8 = std::int8_t;
using i16 = std::int16_t;
using i32 = std::int32_t;
using i64 = std::int64_t;
using u128 = unsigned __int128;
using i128 = __int128;

inline constexpr u64 kPageSize = 4096;
inline constexpr u64 kPageMask = ~(kPageSize - 1);

inline constexpr u64 KiB = 1024, MiB = 1024 * KiB, GiB = 1024 * MiB;

}  // namespace trapline
