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
      {0, kExtendedBiosData, MemoryType::ram},
      {kExtendedBiosData, kVideoHoleStart - kExtendedBiosData, MemoryType::reserved},
      {kAcpiTablesStart, kBiosAreaEnd - kAcpiTablesStart, MemoryType::reserved},
  };
  if (ram.low_end() > MiB) out.push_back({MiB, ram.low_end() - MiB, MemoryType::ram});
  out.push_back({devices::map::ioapic, kPageSize, MemoryType::reserved});
  out.push_back({devices::map::lapic, kPageSize, MemoryType::reserved});
  if (ram.high_end() > kPciHoleEnd) out.push_back({kPciHoleEnd, ram.high_end() - kPciHoleEnd, MemoryType::ram});
  return out;
}

Placer::Placer(const GuestMemory& ram) {
  for (const MemoryRange& range : memory_map(ram))
    if (range.type == MemoryType::ram) usable_.push_back({range.start, range.start + range.size});
}

Placer::Claim Placer::claim(u64 start, u64 size) {
  if (size == 0) return Claim::ok;
  if (start + size < start) return Claim::not_ram;
  const auto holds = [&](const Range& r) { return start >= r.start && start + size <= r.end; };
  if (std::none_of(usable_.begin(), usable_.end(), holds)) return Claim::not_ram;
  if (!is_free(start, size)) return Claim::taken;
  insert({start, start + size});
  return Claim::ok;
}

bool Placer::is_free(u64 start, u64 size) const {
  return std::none_of(taken_.begin(), taken_.end(),
                      [&](const Range& r) { return start < r.end && r.start < start + size; });
}

void Placer::release(u64 start) {
  std::erase_if(taken_, [&](const Range& r) { return r.start == start; });
}

void Placer::insert(Range range) {
  const auto at = std::lower_bound(taken_.begin(), taken_.end(), range,
                                   [](const Range& a, const Range& b) { return a.start < b.start; });
  taken_.insert(at, range);
}

std::optional<u64> Placer::find(u64 size, u64 alignment, u64 from, u64 end, bool high) const {
  std::optional<u64> best;
  const auto consider = [&](u64 gap_start, u64 gap_end) {
    gap_start = std::max({gap_start, from, kPageSize});  // page 0 holds the BIOS data area
    gap_end = std::min(gap_end, end);
    const auto first = align_up(gap_start, alignment);
    if (!first || *first >= gap_end || gap_end - *first < size) return;
    if (high)
      best = align_down(gap_end - size, alignment);
    else if (!best)
      best = *first;
  };
  for (const Range& r : usable_) {
    u64 at = r.start;
    for (const Range& t : taken_) {
      if (t.end <= at || t.start >= r.end) continue;
      consider(at, t.start);
      at = t.end;
    }
    consider(at, r.end);
  }
  return best;
}

std::optional<u64> Placer::lowest(u64 size, u64 alignment, u64 from, u64 end) {
  const auto at = find(std::max<u64>(size, 1), alignment, from, end, false);
  if (at) insert({*at, *at + std::max<u64>(size, 1)});
  return at;
}

std::optional<u64> Placer::highest(u64 size, u64 alignment, u64 from, u64 end) {
  const auto at = find(std::max<u64>(size, 1), alignment, from, end, true);
  if (at) insert({*at, *at + std::max<u64>(size, 1)});
  return at;
}

}  // namespace trapline::boot::loader
