// Guest RAM: one memfd, mapped so that host address = base + gpa for every gpa that is RAM.
//
//   gpa 0 ........ 0xA0000 [legacy video hole] 0xC0000 ........ min(size, 3 GiB) [PCI hole] 4 GiB ........
//
// RAM above 3 GiB continues at 4 GiB. The holes are address space without access. C0000-FFFFF is RAM (tables for
// guests). A machine with firmware has more (GuestMemory::Extras): a ROM that ends at 4 GiB, which is memory of its own
// and no RAM, and a text screen, whose 32 KiB at B8000 are RAM like any other. Thread-safe: the layout never changes;
// contents are the guest's business.
#pragma once

#include <atomic>
#include <memory>
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
inline constexpr u64 kTextScreenStart = 0xB8000;

class GuestMemory {
 public:
  struct Extras {
    u64 rom = 0;               // bytes, whole pages; zeroed
    bool text_screen = false;  // B8000-BFFFF is there
  };
  // `fd` holds `size` bytes (a multiple of 4 KiB, at least 1 MiB); it is not kept. Error: a message naming the failed
  // step.
  static Result<GuestMemory, std::string> map(int fd, u64 size, const Extras& extras);
  static Result<GuestMemory, std::string> map(int fd, u64 size) { return map(fd, size, Extras{}); }
  // Anonymous RAM, for unit tests and fuzzers.
  static Result<GuestMemory, std::string> anonymous(u64 size) { return map(-1, size); }
  // Creates the memfd that map() takes. The caller owns the descriptor.
  static Result<int, std::string> create_fd(u64 size);

  GuestMemory() = default;
  GuestMemory(GuestMemory&& other) noexcept;
  GuestMemory& operator=(GuestMemory&& other) noexcept;
  ~GuestMemory();

  u64 size() const { return size_; }
  u64 low_end() const { return size_ < kPciHoleStart ? size_ : kPciHoleStart; }  // end of RAM below 4 GiB
  u64 high_end() const { return size_ > kPciHoleStart ? kPciHoleEnd + size_ - kPciHoleStart : kPciHoleEnd; }
  u64 frames() const { return reserved_ / kPageSize; }  // for per-frame tables
  static u64 frames_of(u64 size, bool rom = false) {
    return (size > kPciHoleStart ? kPciHoleEnd + size - kPciHoleStart : rom ? kPciHoleEnd : size) / kPageSize;
  }

  // Is the byte at `gpa` RAM?
  bool is_ram(Gpa gpa) const {
    return gpa.raw < low_end() ? gpa.raw - kVideoHoleStart >= hole_ : gpa.raw >= kPciHoleEnd && gpa.raw < high_end();
  }
  // Is it the ROM's? Guests read and execute it; what they write there is lost.
  bool is_rom(Gpa gpa) const { return gpa.raw < kPciHoleEnd && gpa.raw >= kPciHoleEnd - rom_; }
  bool is_memory(Gpa gpa) const { return is_ram(gpa) || is_rom(gpa); }
  std::span<std::byte> rom() const { return {base_ + kPciHoleEnd - rom_, rom_}; }
  // The host address of RAM byte `gpa`; the caller has checked is_ram (whole pages are RAM or not).
  std::byte* host(Gpa gpa) const { return base_ + gpa.raw; }
  std::byte* base() const { return base_; }

  // The byte at `gpa` is RAM and about to be accessed, perhaps for the first time: has the host give memory to the 64 KiB
  // around it at once, which takes it little longer than one page, or the huge page around it, if `fd` has those. What
  // is touched in order is touched ahead (base/touch_ahead.h): as much as lies behind, up to 2 MiB, or 8 of huge pages.
  // Thread-safe.
  void expect(Gpa gpa) const {
    const u64 chunk = gpa.raw >> chunk_shift_;
    if (!is_expected(chunk)) [[unlikely]]
      populate(gpa);
  }

  // Before a system call writes to [gpa, gpa + bytes), all of it RAM: it would take no huge pages by itself.
  void expect_huge(Gpa gpa, u64 bytes) const;

  // The host bytes of [gpa, gpa + length), or nothing unless all of them are RAM.
  std::optional<std::span<std::byte>> bytes(Gpa gpa, u64 length) const;

 private:
  static constexpr u64 kSmallChunk = 64 * KiB;
  static constexpr unsigned kSmallShift = 16, kHugeShift = 21;
  static constexpr u64 kSmallAhead = 2 * MiB, kHugeAhead = 8 * MiB;
  void populate(Gpa gpa) const;
  void ask_ahead(u64 chunk) const;
  bool is_expected(u64 chunk) const { return expected_[chunk / 64].load(std::memory_order_relaxed) >> chunk % 64 & 1; }
  std::byte* base_ = nullptr;
  std::unique_ptr<std::atomic<u64>[]> expected_;  // by chunk
  std::unique_ptr<std::atomic<u64>[]> asked_;     // likewise: ahead
  u64 size_ = 0;
  u64 reserved_ = 0;
  u64 rom_ = 0;                                 // bytes
  u64 hole_ = kVideoHoleEnd - kVideoHoleStart;  // bytes
  unsigned chunk_shift_ = kSmallShift;
};

}  // namespace trapline
