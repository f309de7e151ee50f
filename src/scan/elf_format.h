// The ELF structures as numbers that the readers share; both classes in one shape. System V gABI chapter 4.
#pragma once

#include <vector>

#include "scan/elf.h"

namespace trapline::scan::elf {

inline constexpr u16 kRelocatable = 1, kExecutable = 2, kDynamic = 3;
inline constexpr u16 kMachine386 = 3, kMachineIamcu = 6, kMachineX86_64 = 62;
inline constexpr u32 kProgbits = 1, kSymtab = 2, kRela = 4, kNobits = 8, kRel = 9, kDynsym = 11, kInitArray = 14,
                     kFiniArray = 15, kPreinitArray = 16, kRelr = 19, kUnwind = 0x70000001;
inline constexpr u64 kWrite = 1, kAlloc = 2, kExecute = 4;
inline constexpr u32 kLoad = 1;

struct Header {
  bool is64 = false;
  u16 type = 0, machine = 0;
  u64 entry = 0, segments = 0, sections = 0;
  u32 segment_size = 0, segment_count = 0, section_size = 0, section_count = 0, names = 0;
};

struct SectionHeader {
  u32 name = 0, type = 0;
  u64 flags = 0, address = 0, offset = 0, size = 0;
  u32 link = 0, info = 0;
  u64 alignment = 1, entry_size = 0;
};

struct SegmentHeader {
  u32 type = 0, flags = 0;
  u64 offset = 0, address = 0, file_size = 0, memory_size = 0;
};

struct SymbolEntry {
  u32 name = 0;
  u8 info = 0;
  u16 section = 0;
  u64 value = 0, size = 0;
  u8 type() const { return info & 15; }
};

// The file with its tables, checked to lie inside.
struct File {
  Bytes bytes;
  Header header;
  std::vector<SectionHeader> sections;
  std::vector<SegmentHeader> segments;
  std::vector<i64> image_section;  // by ELF section index: the index in Image::sections, or -1

  Bytes contents(const SectionHeader& s) const {
    return s.type == kNobits ? Bytes{} : slice(bytes, s.offset, s.size).value_or(Bytes{});
  }
  std::string_view name_of(const SectionHeader& s) const;
};

std::optional<SymbolEntry> symbol_at(const File& file, Bytes table, u64 index);

// Each adds what it finds to the image; see the files of the same names.
void add_symbols(const File& file, Image& image, const Limits& limits);
void add_relocations(const File& file, Image& image, const Limits& limits);
// Section addresses of a relocatable file, made up; by ELF section index.
void place_sections(File& file);

}  // namespace trapline::scan::elf
