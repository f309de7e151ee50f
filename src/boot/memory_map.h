// Guest physical memory as a boot loader sees it: the map handed to the kernel, and who has claimed what while loading.
#pragma once

#include <optional>
#include <vector>

#include "base/guest_memory.h"
#include "boot/image.h"

namespace trapline::boot::loader {

// Values shared by E820, multiboot and PVH (ACPI 6.4 table 15.2).
enum class MemoryType : u32 { ram = 1, reserved = 2 };

struct MemoryRange {
  Gpa start;
  u64 size = 0;
  MemoryType type = MemoryType::ram;
};

inline constexpr Gpa kExtendedBiosData{0x9fc00};  // to 0xa0000: reserved, as a BIOS leaves it
inline constexpr u64 kLowMemoryKiB = kExtendedBiosData.raw / KiB;

// In ascending order, without overlaps. The PCI hole is a gap, but for the interrupt controllers' pages, which are
// reserved.
std::vector<MemoryRange> memory_map(const GuestMemory& ram);

// Usable RAM and what has been put there. Never hands out the first page, the BIOS data area or the ACPI tables.
class Placer {
 public:
  explicit Placer(const GuestMemory& ram);

  enum class Claim : u8 { ok, not_ram, taken };
  // Takes [start, start + size) at a place that the image dictates. Page 0 is allowed here: some kernels load there.
  Claim claim(Gpa start, u64 size);
  bool is_free(Gpa start, u64 size) const;
  void release(Gpa start);  // gives back what was claimed at `start`

  // Claims the lowest (highest) aligned place inside [from, end). `alignment`: a power of two. Nothing if none is left.
  std::optional<Gpa> lowest(u64 size, u64 alignment, Gpa from, Gpa end);
  std::optional<Gpa> highest(u64 size, u64 alignment, Gpa from, Gpa end);

 private:
  struct Range {
    Gpa start, end;
  };
  void insert(Range range);
  std::optional<Gpa> find(u64 size, u64 alignment, Gpa from, Gpa end, bool high) const;

  std::vector<Range> usable_;  // RAM
  std::vector<Range> taken_;   // sorted, disjoint
};

}  // namespace trapline::boot::loader
