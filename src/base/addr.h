// Places in one address space each. Spaces do not mix, and no integer becomes a place by accident.
// Crossing from one to another is always a named function (walk, relocate, Ram::host).
#pragma once

#include <compare>
#include <optional>

#include <fmt/format.h>

#include "base/types.h"

namespace trapline {

template <class Space>
struct Addr {
  u64 raw = 0;
  constexpr Addr() = default;
  constexpr explicit Addr(u64 r) : raw{r} {}
  constexpr auto operator<=>(const Addr&) const = default;
  constexpr u64 operator-(Addr base) const { return raw - base.raw; }     // a distance, not a place
  constexpr Addr wrapping_add(u64 n) const { return Addr{raw + n}; }      // effective addresses wrap
  [[nodiscard]] constexpr std::optional<Addr> checked_add(u64 n) const {  // ends of ranges must not
    return raw + n < raw ? std::nullopt : std::optional{Addr{raw + n}};
  }
  constexpr Addr page() const { return Addr{raw & kPageMask}; }
  constexpr u64 page_offset() const { return raw & (kPageSize - 1); }
  constexpr u64 frame() const { return raw / kPageSize; }
};

using Gva = Addr<struct GuestVirtual>;   // linear address: what guest code dereferences after segmentation
using Gpa = Addr<struct GuestPhysical>;  // what guest page tables and devices name
using Hva = Addr<struct HostVirtual>;    // what generated code dereferences; in C++ prefer std::span

}  // namespace trapline

template <class Space>
struct fmt::formatter<trapline::Addr<Space>> : fmt::formatter<trapline::u64> {
  auto format(const trapline::Addr<Space>& a, fmt::format_context& ctx) const {
    return fmt::format_to(ctx.out(), "{:#x}", a.raw);
  }
};
