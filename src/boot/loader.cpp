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

std::optional<Gpa> place_low(LoadContext& c, u64 size, u64 alignment) {
  auto at = c.place.lowest(size, alignment, Gpa{}, kExtendedBiosData);
  if (!at) at = c.place.lowest(size, alignment, Gpa{MiB}, Gpa{kPciHoleStart});
  if (at) zero(c, *at, size);
  return at;
}

std::optional<Gpa> place_string(LoadContext& c, std::string_view text) {
  const auto at = place_low(c, text.size() + 1, 8);
  if (at) put(c.ram, *at, bytes_of(text));
  return at;
}

std::string claim_error(const LoadContext& c, Placer::Claim why, const std::string& what, Gpa start, u64 size) {
  if (why == Placer::Claim::taken)
    return fmt::format("{} at {}+{:#x} overlaps another one: the image is damaged", what, start, size);
  const u64 end = start.raw + size;  // may have wrapped
  if (start.raw >= MiB && end > start.raw && end > c.ram.low_end() && end <= kPciHoleStart)
    return fmt::format("{} needs {} at {}, but the guest has {} of memory: {}", what, human_size(size), start,
                       human_size(c.ram.size()), memory_remedy(end));
  if (start.raw >= MiB && start.raw < kPciHoleStart)
    return fmt::format("{} is too large: {} at {} does not fit below 3 GiB", what, human_size(size), start);
  return fmt::format("{} at {}+{:#x} does not lie in RAM that a kernel may use", what, start, size);
}

Result<void, std::string> load_segments(LoadContext& c, const ElfImage& elf, u64 delta) {
  for (std::size_t i = 0; i < elf.segments.size(); i++) {
    const ElfSegment& s = elf.segments[i];
    const Gpa start = s.paddr.wrapping_add(delta);
    const auto claim =
        start.raw + s.memory_size > kPciHoleStart ? Placer::Claim::not_ram : c.place.claim(start, s.memory_size);
    if (claim != Placer::Claim::ok)
      return Err{claim_error(c, claim, fmt::format("ELF segment {}", i), start, s.memory_size)};
  }
  for (const ElfSegment& s : elf.segments) {
    const Gpa start = s.paddr.wrapping_add(delta);
    put_image(c, start, *slice(elf.image, s.offset, s.file_size));
    zero(c, start.wrapping_add(s.file_size), s.memory_size - s.file_size);
    TRACE(boot, "segment {}+{:#x}", start, s.memory_size);
  }
  return {};
}

}  // namespace trapline::boot::loader
