#include "boot/elf.h"

#include <algorithm>
#include <cstring>

namespace trapline::boot::loader {

namespace {

constexpr u32 kPtLoad = 1, kPtNote = 4;
constexpr u16 kMachine386 = 3, kMachineX86_64 = 62, kTypeExec = 2, kTypeDyn = 3, kManyHeaders = 0xffff;
constexpr u32 kNotePhys32Entry = 18;

// Offsets of the fields that differ between the classes (gABI figures 4-3 and 5-1; psABI for x86-64).
struct Layout {
  u64 word;                                         // bytes of an address
  u64 header_size, entry, phoff, shoff, phentsize;  // phnum, shentsize, shnum, shstrndx follow phentsize by 2 each
  u64 ph_size, p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_align;
  u64 sh_size, sh_addr, sh_offset, sh_length, sh_align;
};
constexpr Layout kElf32{4, 52, 24, 28, 32, 42, 32, 4, 8, 12, 16, 20, 28, 40, 12, 16, 20, 32};
constexpr Layout kElf64{8, 64, 24, 32, 40, 54, 56, 8, 16, 24, 32, 40, 48, 64, 16, 24, 32, 48};

u64 word(Bytes image, u64 offset, const Layout& l) {
  return l.word == 8 ? load_or_zero<u64>(image, offset) : load_or_zero<u32>(image, offset);
}

const char* machine_name(u16 machine) {
  switch (machine) {
    case 2:
      return "SPARC";
    case 8:
      return "MIPS";
    case 20:
      return "PowerPC";
    case 21:
      return "64-bit PowerPC";
    case 22:
      return "s390";
    case 40:
      return "32-bit Arm";
    case 43:
      return "64-bit SPARC";
    case 50:
      return "Itanium";
    case 183:
      return "64-bit Arm";
    case 243:
      return "RISC-V";
    case 258:
      return "LoongArch";
    default:
      return nullptr;
  }
}

Result<ElfSegment, std::string> parse_segment(Bytes image, Bytes header, const Layout& l, unsigned index) {
  ElfSegment s{word(header, l.p_offset, l), word(header, l.p_filesz, l), Gpa{word(header, l.p_paddr, l)},
               Gva{word(header, l.p_vaddr, l)}, word(header, l.p_memsz, l)};
  if (s.file_size > s.memory_size)
    return Err{fmt::format("ELF segment {} has more bytes in the file than in memory ({} > {})", index, s.file_size,
                           s.memory_size)};
  if (!slice(image, s.offset, s.file_size))
    return Err{fmt::format("truncated: ELF segment {} needs bytes {:#x}+{:#x}, the file has {:#x}: get a whole copy",
                           index, s.offset, s.file_size, image.size())};
  if (!s.paddr.checked_add(s.memory_size))
    return Err{fmt::format("ELF segment {} wraps around the address space ({}+{:#x})", index, s.paddr, s.memory_size)};
  return s;
}

Result<void, std::string> check_identity(Bytes image) {
  const u8 data = load_or_zero<u8>(image, 5);
  const u16 type = load_or_zero<u16>(image, 16), machine = load_or_zero<u16>(image, 18);
  if (data != 1) return Err{std::string("ELF for a big-endian machine: an x86 kernel is needed")};
  if (machine != kMachine386 && machine != kMachineX86_64) {
    const char* name = machine_name(machine);
    return Err{fmt::format("ELF for another machine ({}): an x86 kernel is needed",
                           name ? std::string(name) : fmt::format("e_machine {}", machine))};
  }
  if (type != kTypeExec && type != kTypeDyn)
    return Err{fmt::format("ELF that is not executable (e_type {}): link it first", type)};
  return {};
}

}  // namespace

bool is_elf(Bytes image) { return load_or_zero<u32>(image, 0) == 0x464c457f; }

Result<ElfImage, std::string> parse_elf(Bytes image) {
  const u8 elf_class = load_or_zero<u8>(image, 4);
  if (elf_class != 1 && elf_class != 2) return Err{fmt::format("damaged ELF header (class {})", elf_class)};
  const Layout& l = elf_class == 2 ? kElf64 : kElf32;
  if (image.size() < l.header_size)
    return Err{std::string("truncated: the file ends inside its ELF header: get a whole copy")};
  if (auto ok = check_identity(image); !ok) return Err{ok.error()};

  ElfImage elf;
  elf.image = image;
  elf.is64 = elf_class == 2;
  elf.entry = Gva{word(image, l.entry, l)};
  const u64 phoff = word(image, l.phoff, l);
  const u16 phentsize = load_or_zero<u16>(image, l.phentsize), phnum = load_or_zero<u16>(image, l.phentsize + 2);
  if (phnum == 0 || phnum == kManyHeaders || phentsize < l.ph_size)
    return Err{fmt::format("ELF without usable program headers ({} of {} bytes)", phnum, phentsize)};
  const auto table = slice(image, phoff, u64{phentsize} * phnum);
  if (!table)
    return Err{std::string("truncated: the ELF program headers lie beyond the end of the file: get a whole copy")};

  for (unsigned i = 0; i < phnum; i++) {
    const Bytes header = table->subspan(std::size_t{i} * phentsize, l.ph_size);
    const u32 type = load_or_zero<u32>(header, 0);
    if (type == kPtLoad) {
      auto segment = parse_segment(image, header, l, i);
      if (!segment) return Err{segment.error()};
      if (segment->memory_size) elf.segments.push_back(*segment);
    } else if (type == kPtNote) {
      if (auto note = slice(image, word(header, l.p_offset, l), word(header, l.p_filesz, l)))
        elf.notes.push_back(*note);
    }
  }
  if (elf.segments.empty()) return Err{std::string("ELF with nothing to load (no PT_LOAD segment)")};

  const u64 shoff = word(image, l.shoff, l);
  elf.section_entry_size = load_or_zero<u16>(image, l.phentsize + 4);
  elf.section_count = load_or_zero<u16>(image, l.phentsize + 6);
  elf.section_names = load_or_zero<u16>(image, l.phentsize + 8);
  const auto sections = slice(image, shoff, u64{elf.section_entry_size} * elf.section_count);
  if (shoff && sections && elf.section_entry_size >= l.sh_size)
    elf.section_headers = *sections;
  else
    // Sections are for symbols: not worth a refusal.
    elf.section_entry_size = elf.section_count = elf.section_names = 0;
  return elf;
}

std::vector<ElfSection> ElfImage::sections() const {
  const Layout& l = is64 ? kElf64 : kElf32;
  std::vector<ElfSection> out;
  for (u64 i = 0; i < section_count; i++) {
    const Bytes h = section_headers.subspan(i * section_entry_size, l.sh_size);
    ElfSection s{load_or_zero<u32>(h, 4), load_or_zero<u32>(h, 0), Gva{word(h, l.sh_addr, l)},
                 word(h, l.sh_offset, l), word(h, l.sh_length, l), word(h, l.sh_align, l)};
    if (s.type != elf::sht_nobits && !slice(image, s.offset, s.size)) s.size = 0;
    out.push_back(s);
  }
  return out;
}

std::optional<Bytes> ElfImage::section(std::string_view name) const {
  const std::vector<ElfSection> all = sections();
  if (section_names >= all.size() || all[section_names].type == elf::sht_nobits) return std::nullopt;
  const auto names = slice(image, all[section_names].offset, all[section_names].size);
  for (const ElfSection& s : all) {
    const auto text = names ? slice(*names, s.name, name.size() + 1) : std::nullopt;
    if (!text || s.type == elf::sht_nobits || std::memcmp(text->data(), name.data(), name.size()) != 0 ||
        text->back() != std::byte{0})
      continue;
    return slice(image, s.offset, s.size);
  }
  return std::nullopt;
}

std::optional<Gpa> ElfImage::physical_entry() const {
  for (const ElfSegment& s : segments)
    if (entry >= s.vaddr && entry - s.vaddr < s.memory_size) return s.paddr.wrapping_add(entry - s.vaddr);
  const Gpa same{entry.raw};
  return holds_physical(same) ? std::optional{same} : std::nullopt;
}

bool ElfImage::holds_physical(Gpa paddr) const {
  return std::any_of(segments.begin(), segments.end(),
                     [&](const ElfSegment& s) { return paddr >= s.paddr && paddr - s.paddr < s.memory_size; });
}

std::optional<Gpa> pvh_entry(const ElfImage& elf) {
  for (const Bytes note : elf.notes) {
    u64 at = 0;
    while (const auto name_size = load<u32>(note, at)) {
      const u64 desc_size = load_or_zero<u32>(note, at + 4);
      const u32 type = load_or_zero<u32>(note, at + 8);
      const u64 name = at + 12, desc = name + *align_up(*name_size, 4);  // 32-bit sizes: sums fit 64 bits
      const auto text = slice(note, name, *name_size);
      if (type == kNotePhys32Entry && text && *name_size == 4 && std::memcmp(text->data(), "Xen", 4) == 0) {
        std::optional<u64> value;
        if (desc_size == 8) value = load<u64>(note, desc);
        if (desc_size == 4) value = load<u32>(note, desc);
        if (value) return Gpa{*value};
      }
      at = desc + *align_up(desc_size, 4);
    }
  }
  return std::nullopt;
}

}  // namespace trapline::boot::loader
