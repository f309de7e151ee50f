#include "boot/loader.h"

#include <algorithm>

#include "base/invariant.h"
#include "base/trace.h"

namespace trapline::boot::loader {

void put(GuestMemory& ram, Gpa at, Bytes bytes) {
  if (bytes.empty()) return;
  const auto to = ram.bytes(at, bytes.size());
  INVARIANT(to, "boot: {}+{:#x} is not RAM", at, bytes.size());
  // A few pages at a time: one by one they cost the host a fault each.
  if (bytes.size() > 64 * KiB)
    for (u64 offset = 0; offset < bytes.size(); offset += kPageSize) ram.expect(at.wrapping_add(offset));
  std::memcpy(to->data(), bytes.data(), bytes.size());
}

void put_image(LoadContext& c, Gpa at, Bytes bytes) {
  if (bytes.empty()) return;
  INVARIANT(c.ram.bytes(at, bytes.size()), "boot: {}+{:#x} is not RAM", at, bytes.size());
  if (!c.request.bring || !c.request.bring(bytes, at)) put(c.ram, at, bytes);
}

void zero(LoadContext& c, Gpa at, u64 size) {
  if (size == 0) return;
  const auto to = c.ram.bytes(at, size);
  INVARIANT(to, "boot: {}+{:#x} is not RAM", at, size);
  // Firmware and tables have been written below.
  const u64 written = at.raw < MiB ? std::min(size, MiB - at.raw) : 0;
  std::memset(to->data(), 0, c.request.ram_is_zero ? written : size);
}

std::optional<u64> place_low(LoadContext& c, u64 size, u64 alignment) {
  auto at = c.place.lowest(size, alignment, 0, kExtendedBiosData);
  if (!at) at = c.place.lowest(size, alignment, MiB, kPciHoleStart);
  if (at) zero(c, Gpa{*at}, size);
  return at;
}

std::optional<u64> place_string(LoadContext& c, std::string_view text) {
  const auto at = place_low(c, text.size() + 1, 8);
  if (at) put(c.ram, Gpa{*at}, bytes_of(text));
  return at;
}

std::string claim_error(const LoadContext& c, Placer::Claim why, const std::string& what, u64 start, u64 size) {
  if (why == Placer::Claim::taken)
    return fmt::format("{} at {:#x}+{:#x} overlaps another one: the image is damaged", what, start, size);
  const u64 end = start + size;
  if (start >= MiB && end > start && end > c.ram.low_end() && end <= kPciHoleStart)
    return fmt::format("{} needs {} at {:#x}, but the guest has {} of memory: {}", what, human_size(size), start,
                       human_size(c.ram.size()), memory_remedy(end));
  if (start >= MiB && start < kPciHoleStart)
    return fmt::format("{} is too large: {} at {:#x} does not fit below 3 GiB", what, human_size(size), start);
  return fmt::format("{} at {:#x}+{:#x} does not lie in RAM that a kernel may use", what, start, size);
}

Result<void, std::string> load_segments(LoadContext& c, const ElfImage& elf, u64 delta) {
  for (std::size_t i = 0; i < elf.segments.size(); i++) {
    const ElfSegment& s = elf.segments[i];
    const u64 start = s.paddr + delta;
    const auto claim =
        start + s.memory_size > kPciHoleStart ? Placer::Claim::not_ram : c.place.claim(start, s.memory_size);
    if (claim != Placer::Claim::ok)
      return Err{claim_error(c, claim, fmt::format("ELF segment {}", i), start, s.memory_size)};
  }
  for (const ElfSegment& s : elf.segments) {
    put_image(c, Gpa{s.paddr + delta}, *slice(elf.image, s.offset, s.file_size));
    zero(c, Gpa{s.paddr + delta + s.file_size}, s.memory_size - s.file_size);
    TRACE(boot, "segment {:#x}+{:#x}", s.paddr + delta, s.memory_size);
  }
  return {};
}

}  // namespace trapline::boot::loader
