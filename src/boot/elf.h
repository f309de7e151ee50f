// ELF32 and ELF64 executables for x86: what a boot loader needs of them. The bytes are hostile; parse_elf() has checked
// every range it returns against the image's end. System V gABI chapters 4 and 5.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "boot/image.h"

namespace trapline::boot::loader {

struct ElfSegment {
  u64 offset = 0, file_size = 0;  // inside the image
  Gpa paddr;
  Gva vaddr;
  u64 memory_size = 0;  // >= file_size; paddr + memory_size does not overflow
};

struct ElfSection {        // inside the image unless `nobits`
  u32 type = 0, name = 0;  // where its name begins in the section of names
  Gva address;
  u64 offset = 0, size = 0, alignment = 1;
};

struct ElfImage {
  bool is64 = false;
  Gva entry;                         // virtual, as the header gives it
  std::vector<ElfSegment> segments;  // PT_LOAD with memory
  std::vector<Bytes> notes;          // contents of PT_NOTE
  Bytes section_headers;             // raw table; empty when there is none or it does not fit the image
  u32 section_entry_size = 0, section_count = 0, section_names = 0;

  std::vector<ElfSection> sections() const;                   // by index; those that do not fit the image have size 0
  std::optional<Bytes> section(std::string_view name) const;  // contents of the first one that is called so
  // The physical address of the entry point: through the segment that holds the virtual one, else as it stands.
  // Nothing when no segment holds it.
  std::optional<Gpa> physical_entry() const;
  bool holds_physical(Gpa paddr) const;
  Bytes image;
};

bool is_elf(Bytes image);
// Error: one line without the image's name.
Result<ElfImage, std::string> parse_elf(Bytes image);
// XEN_ELFNOTE_PHYS32_ENTRY (18): where a PVH kernel starts. Nothing without the note.
std::optional<Gpa> pvh_entry(const ElfImage& elf);

namespace elf {
inline constexpr u32 sht_nobits = 8;
}

}  // namespace trapline::boot::loader
