#include "boot/memory_map.h"

#include <algorithm>

#include "boot/acpi_area.h"
#include "devices/board_map.h"

namespace trapline::boot::loader {

std::string human_size(u64 bytes) {
  if (bytes < KiB) return fmt::format("{} bytes", bytes);
  if (bytes < MiB) return fmt::format("{:.1f} KiB", static_cast<double>(bytes) / KiB);
  if (bytes < GiB) return fmt::format("{:.1f} MiB", static_cast<double>(bytes) / MiB);
  return fmt::format("{:.1f} GiB", static_cast<double>(bytes) / GiB);
}

std::string memory_remedy(u64 needed) {
  u64 size = 64 * MiB;
  while (size < needed && size < 1024 * GiB) size *= 2;
  if (size < needed) return "no VM can be that large";
  if (size >= GiB) return fmt::format("give --memory {}G or more", size / GiB);
  return fmt::format("give --memory {}M or more", size / MiB);
}

std::vector<MemoryRange> memory_map(const GuestMemory& ram) {
  std::vector<MemoryRange> out{
      {Gpa{}, kExtendedBiosData.raw, MemoryType::ram},
      {kExtendedBiosData, Gpa{kVideoHoleStart} - kExtendedBiosData, MemoryType::reserved},
      {kAcpiTablesStart, kBiosAreaEnd - kAcpiTablesStart, MemoryType::reserved},
  };
  if (ram.low_end() > MiB) out.push_back({Gpa{MiB}, ram.low_end() - MiB, MemoryType::ram});
  out.push_back({devices::map::ioapic, kPageSize, MemoryType::reserved});
  out.push_back({devices::map::lapic, kPageSize, MemoryType::reserved});
  if (ram.high_end() > kPciHoleEnd) out.push_back({Gpa{kPciHoleEnd}, ram.high_end() - kPciHoleEnd, MemoryType::ram});
  return out;
}

Placer::Placer(const GuestMemory& ram) {
  for (const MemoryRange& range : memory_map(ram))
    if (range.type == MemoryType::ram) usable_.push_back({range.start, range.start.wrapping_add(range.size)});
}

Placer::Claim Placer::claim(Gpa start, u64 size) {
  if (size == 0) return Claim::ok;
  const auto end = start.checked_add(size);
  if (!end) return Claim::not_ram;
  const auto holds = [&](const Range& r) { return start >= r.start && *end <= r.end; };
  if (std::none_of(usable_.begin(), usable_.end(), holds)) return Claim::not_ram;
  if (!is_free(start, size)) return Claim::taken;
  insert({start, *end});
  return Claim::ok;
}

bool Placer::is_free(Gpa start, u64 size) const {
  return std::none_of(taken_.begin(), taken_.end(),
                      [&](const Range& r) { return start < r.end && r.start < start.wrapping_add(size); });
}

void Placer::release(Gpa start) {
  std::erase_if(taken_, [&](const Range& r) { return r.start == start; });
}

void Placer::insert(Range range) {
  const auto at = std::lower_bound(taken_.begin(), taken_.end(), range,
                                   [](const Range& a, const Range& b) { return a.start < b.start; });
  taken_.insert(at, range);
}

std::optional<Gpa> Placer::find(u64 size, u64 alignment, Gpa from, Gpa end, bool high) const {
  std::optional<Gpa> best;
  const auto consider = [&](Gpa gap_start, Gpa gap_end) {
    gap_start = std::max({gap_start, from, Gpa{kPageSize}});  // page 0 holds the BIOS data area
    gap_end = std::min(gap_end, end);
    const auto first = align_up(gap_start, alignment);
    if (!first || *first >= gap_end || gap_end - *first < size) return;
    if (high)
      best = align_down(Gpa{gap_end.raw - size}, alignment);
    else if (!best)
      best = *first;
  };
  for (const Range& r : usable_) {
    Gpa at = r.start;
    for (const Range& t : taken_) {
      if (t.end <= at || t.start >= r.end) continue;
      consider(at, t.start);
      at = t.end;
    }
    consider(at, r.end);
  }
  return best;
}

std::optional<Gpa> Placer::lowest(u64 size, u64 alignment, Gpa from, Gpa end) {
  const auto at = find(std::max<u64>(size, 1), alignment, from, end, false);
  if (at) insert({*at, at->wrapping_add(std::max<u64>(size, 1))});
  return at;
}

std::optional<Gpa> Placer::highest(u64 size, u64 alignment, Gpa from, Gpa end) {
  const auto at = find(std::max<u64>(size, 1), alignment, from, end, true);
  if (at) insert({*at, at->wrapping_add(std::max<u64>(size, 1))});
  return at;
}

}  // namespace trapline::boot::loader
