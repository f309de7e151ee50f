// Guest RAM: one memfd, mapped so that host address = base + gpa for every gpa that is RAM.
//
//   gpa 0 ........ 0xA0000 [legacy video hole] 0xC0000 ........ min(size, 3 GiB) [PCI hole] 4 GiB ........
//
// RAM above 3 GiB continues at 4 GiB. The holes are address space without access. C0000-FFFFF is RAM (tables for
// guests). Thread-safe: the layout never changes; contents are the guest's business.
#pragma once

#include <optional>
#include <span>
#include <string>

#include "base/addr.h"
#include "base/result.h"
#include "base/types.h"

namespace trapline {

inline constexpr u64 kPciHoleStart = 3 * GiB;
inline constexpr u64 kPciHoleEnd = 4 * GiB;
inline constexpr u64 kVideoHoleStart = 0xA0000;
inline constexpr u64 kVideoHoleEnd = 0xC0000;

class GuestMemory {
 public:
  // `fd` holds `size` bytes (a multiple of 4 KiB, at least 1 MiB); it is not kept. Error: a message naming the failed
  // step.
  static Result<GuestMemory, std::string> map(int fd, u64 size);
  // Anonymous RAM, for unit tests and fuzzers.
  static Result<GuestMemory, std::string> anonymous(u64 size);
  // Creates the memfd that map() takes. The caller owns the descriptor.
  static Result<int, std::string> create_fd(u64 size);

  GuestMemory() = default;
  GuestMemory(GuestMemory&& other) noexcept;
  GuestMemory& operator=(GuestMemory&& other) noexcept;
  ~GuestMemory();

  u64 size() const { return size_; }
  u64 low_end() const { return size_ < kPciHoleStart ? size_ : kPciHoleStart; }  // end of RAM below 4 GiB
  u64 high_end() const { return size_ > kPciHoleStart ? kPciHoleEnd + size_ - kPciHoleStart : kPciHoleEnd; }
  u64 frames() const { return (size_ > kPciHoleStart ? high_end() : low_end()) / kPageSize; }  // for per-frame tables

  // Is the byte at `gpa` RAM?
  bool is_ram(Gpa gpa) const {
    return gpa.raw < low_end() ? gpa.raw - kVideoHoleStart >= kVideoHoleEnd - kVideoHoleStart
                               : gpa.raw >= kPciHoleEnd && gpa.raw < high_end();
  }
  // The host address of RAM byte `gpa`; the caller has checked is_ram (whole pages are RAM or not).
  std::byte* host(Gpa gpa) const { return base_ + gpa.raw; }
  std::byte* base() const { return base_; }

  // The host bytes of [gpa, gpa + length), or nothing unless all of them are RAM.
  std::optional<std::span<std::byte>> bytes(Gpa gpa, u64 length) const;

 private:
  std::byte* base_ = nullptr;
  u64 size_ = 0;
  u64 reserved_ = 0;
};

}  // namespace trapline
