#include "scan/elf.h"

#include <fmt/format.h>

#include <algorithm>

#include "scan/elf_format.h"

namespace trapline::scan {

namespace elf {

namespace {

constexpr u32 kNoNames = 0, kNamesInSection0 = 0xffff;

Result<Header, std::string> read_header(Bytes b) {
  Header h;
  const auto cls = load<u8>(b, 4), data = load<u8>(b, 5);
  if (!cls || !data || b.size() < 52) return Err{std::string{"ELF: truncated header"}};
  if (*cls != 1 && *cls != 2) return Err{fmt::format("ELF: class {} is neither 32 nor 64 bit", *cls)};
  if (*data != 1) return Err{std::string{"ELF: big-endian: not x86"}};
  h.is64 = *cls == 2;
  if (h.is64 && b.size() < 64) return Err{std::string{"ELF: truncated header"}};
  h.type = *load<u16>(b, 16);
  h.machine = *load<u16>(b, 18);
  if (h.machine != kMachine386 && h.machine != kMachineX86_64 && h.machine != kMachineIamcu)
    return Err{fmt::format("ELF: machine {} is not x86", h.machine)};
  if (h.type < kRelocatable || h.type > kDynamic)
    return Err{fmt::format("ELF: type {}: give an executable, a shared object or a relocatable file", h.type)};
  h.entry = h.is64 ? *load<u64>(b, 24) : *load<u32>(b, 24);
  h.segments = h.is64 ? *load<u64>(b, 32) : *load<u32>(b, 28);
  h.sections = h.is64 ? *load<u64>(b, 40) : *load<u32>(b, 32);
  const u64 at = h.is64 ? 54 : 42;
  h.segment_size = *load<u16>(b, at);
  h.segment_count = *load<u16>(b, at + 2);
  h.section_size = *load<u16>(b, at + 4);
  h.section_count = *load<u16>(b, at + 6);
  h.names = *load<u16>(b, at + 8);
  return h;
}

std::optional<SectionHeader> section_at(Bytes b, const Header& h, u64 index) {
  const u64 least = h.is64 ? 64 : 40;
  if (h.section_size < least) return std::nullopt;
  const auto raw = slice(tail(b, h.sections), index * h.section_size, least);
  if (!raw) return std::nullopt;
  SectionHeader s;
  s.name = *load<u32>(*raw, 0);
  s.type = *load<u32>(*raw, 4);
  if (h.is64) {
    s.flags = *load<u64>(*raw, 8), s.address = *load<u64>(*raw, 16), s.offset = *load<u64>(*raw, 24);
    s.size = *load<u64>(*raw, 32), s.link = *load<u32>(*raw, 40), s.info = *load<u32>(*raw, 44);
    s.alignment = *load<u64>(*raw, 48), s.entry_size = *load<u64>(*raw, 56);
  } else {
    s.flags = *load<u32>(*raw, 8), s.address = *load<u32>(*raw, 12), s.offset = *load<u32>(*raw, 16);
    s.size = *load<u32>(*raw, 20), s.link = *load<u32>(*raw, 24), s.info = *load<u32>(*raw, 28);
    s.alignment = *load<u32>(*raw, 32), s.entry_size = *load<u32>(*raw, 36);
  }
  return s;
}

std::optional<SegmentHeader> segment_at(Bytes b, const Header& h, u64 index) {
  const u64 least = h.is64 ? 56 : 32;
  if (h.segment_size < least) return std::nullopt;
  const auto raw = slice(tail(b, h.segments), index * h.segment_size, least);
  if (!raw) return std::nullopt;
  SegmentHeader s;
  s.type = *load<u32>(*raw, 0);
  if (h.is64) {
    s.flags = *load<u32>(*raw, 4), s.offset = *load<u64>(*raw, 8), s.address = *load<u64>(*raw, 16);
    s.file_size = *load<u64>(*raw, 32), s.memory_size = *load<u64>(*raw, 40);
  } else {
    s.flags = *load<u32>(*raw, 24), s.offset = *load<u32>(*raw, 4), s.address = *load<u32>(*raw, 8);
    s.file_size = *load<u32>(*raw, 16), s.memory_size = *load<u32>(*raw, 20);
  }
  return s;
}

// Section 0 holds what does not fit the header's 16-bit fields (gABI chapter 4, "Sections").
std::string read_sections(File& f, const Limits& limits) {
  Header& h = f.header;
  if (h.sections == 0) return {};
  const auto zero = section_at(f.bytes, h, 0);
  if (!zero) return "ELF: truncated: the section headers lie outside of the file";
  u64 count = h.section_count;
  if (count == 0) count = zero->size;
  if (h.names == kNamesInSection0) h.names = zero->link;
  if (count > limits.sections)
    return fmt::format("ELF: {} sections: more than {} are not read", count, limits.sections);
  for (u64 i = 0; i < count; i++) {
    const auto s = section_at(f.bytes, h, i);
    if (!s) return fmt::format("ELF: truncated: section header {} of {} lies outside of the file", i, count);
    f.sections.push_back(*s);
  }
  return {};
}

std::string read_segments(File& f) {
  if (f.header.segments == 0) return {};
  for (u64 i = 0; i < f.header.segment_count; i++) {
    const auto s = segment_at(f.bytes, f.header, i);
    if (!s) return fmt::format("ELF: truncated: program header {} lies outside of the file", i);
    f.segments.push_back(*s);
  }
  return {};
}

bool fits(const SectionHeader& s, const File& f) { return s.type == kNobits || slice(f.bytes, s.offset, s.size); }

// The loader and the kernel map segments; a section's flag is the linker's word only. Debian's kernels 7.2 have it on
// .data.
bool mapped_without_execution(const File& f, const SectionHeader& h) {
  bool any = false, without = false;
  for (const SegmentHeader& s : f.segments) {
    if (s.type != kLoad) continue;
    any |= (s.flags & 1) != 0;
    const bool holds = h.address >= s.address && h.size <= s.file_size && h.address - s.address <= s.file_size - h.size;
    if (holds) without = (s.flags & 1) == 0;
  }
  return any && without;
}

void add_section(File& f, Image& image, u64 index) {
  const SectionHeader& h = f.sections[index];
  std::string name{f.name_of(h)};
  if (name.empty()) name = fmt::format("section {}", index);
  if (!fits(h, f)) {
    image.warnings.push_back(fmt::format("section {} ({}) lies outside of the file: left out", index, name));
    return;
  }
  if (h.address + h.size < h.address || (!f.header.is64 && h.address + h.size > u64{1} << 32)) {
    image.warnings.push_back(fmt::format("section {} ({}) wraps around the address space: left out", index, name));
    return;
  }
  Section s;
  s.name = std::move(name);
  s.address = h.address;
  s.bytes = f.contents(h);
  s.file_offset = h.offset;
  s.code = (h.flags & kExecute) && h.type == kProgbits && !s.bytes.empty();
  if (s.code && mapped_without_execution(f, h)) {
    s.code = false;
    image.warnings.push_back(
        fmt::format("section {} is flagged executable, its segment is not: taken for data", s.name));
  }
  f.image_section[index] = static_cast<i64>(image.sections.size());
  if (s.code && s.name.starts_with(".plt")) {
    const u64 step = h.entry_size >= 4 && h.entry_size <= 64 ? h.entry_size : 16;
    for (u64 at = 0; at + step <= s.bytes.size(); at += step) image.roots.push_back({s.address + at, Because::plt});
  }
  image.sections.push_back(std::move(s));
}

// Without section headers: what is loaded executable is code, all of it.
void add_segments(File& f, Image& image) {
  for (std::size_t i = 0; i < f.segments.size(); i++) {
    const SegmentHeader& h = f.segments[i];
    if (h.type != kLoad || h.file_size == 0) continue;
    const auto bytes = slice(f.bytes, h.offset, h.file_size);
    if (!bytes || h.address + h.file_size < h.address) {
      image.warnings.push_back(fmt::format("segment {} lies outside of the file: left out", i));
      continue;
    }
    image.sections.push_back({fmt::format("segment {}", i), h.address, *bytes, h.offset, (h.flags & 1) != 0});
  }
}

// Bytes are scanned once: a code section that shares addresses or file bytes with an earlier one is left out.
void drop_overlaps(Image& image) {
  std::vector<Section*> code;
  for (Section& s : image.sections)
    if (s.code) code.push_back(&s);
  const auto drop = [&](auto first_of, const char* what) {
    std::stable_sort(code.begin(), code.end(), [&](auto* a, auto* b) { return first_of(*a) < first_of(*b); });
    u64 end = 0;
    for (Section* s : code) {
      if (!s->code) continue;
      if (first_of(*s) < end) {
        s->code = false;
        image.warnings.push_back(
            fmt::format("section {} shares {} with another code section: left out", s->name, what));
      } else {
        end = first_of(*s) + s->bytes.size();
      }
    }
  };
  drop([](const Section& s) { return s.address; }, "addresses");
  drop([](const Section& s) { return s.file_offset; }, "bytes");
}

void sort_sections(File& f, Image& image) {
  std::vector<std::size_t> order(image.sections.size());
  for (std::size_t i = 0; i < order.size(); i++) order[i] = i;
  // Of two at one address the one with code comes last: section_of() looks from behind.
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    const Section &x = image.sections[a], &y = image.sections[b];
    return x.address != y.address ? x.address < y.address : x.code < y.code;
  });
  std::vector<Section> sorted;
  std::vector<i64> now(order.size());
  for (std::size_t i = 0; i < order.size(); i++) {
    now[order[i]] = static_cast<i64>(i);
    sorted.push_back(std::move(image.sections[order[i]]));
  }
  image.sections = std::move(sorted);
  for (i64& at : f.image_section)
    if (at >= 0) at = now[static_cast<std::size_t>(at)];
}

void describe(const File& f, Image& image) {
  const char* kinds[] = {"", "relocatable file", "executable", "shared object"};
  image.format = fmt::format("ELF{} {}{}", f.header.is64 ? 64 : 32,
                             f.header.machine == kMachineX86_64 ? (f.header.is64 ? "x86-64 " : "x32 ") : "i386 ",
                             kinds[f.header.type]);
  image.kind = f.header.type == kRelocatable ? ImageKind::relocatable
               : f.header.type == kDynamic   ? ImageKind::shared_object
                                             : ImageKind::executable;
  image.code_size = f.header.machine == kMachineX86_64 ? isa::CodeSize::bits64 : isa::CodeSize::bits32;
  // vmlinux: only the Linux kernel has both.
  if (image.section_named("__ksymtab") && image.section_named("__param") && !image.relocatable())
    image.kind = ImageKind::kernel;
}

}  // namespace

std::string_view File::name_of(const SectionHeader& s) const {
  if (header.names == kNoNames || header.names >= sections.size()) return {};
  return string_at(contents(sections[header.names]), s.name);
}

void place_sections(File& file) {
  u64 at = 0x1000;  // not 0: an undefined symbol's value is no place
  for (SectionHeader& s : file.sections) {
    if (!(s.flags & kAlloc)) continue;
    const u64 alignment =
        s.alignment > 1 && s.alignment <= 4096 && !(s.alignment & (s.alignment - 1)) ? s.alignment : 1;
    at = (at + alignment - 1) & ~(alignment - 1);
    s.address = at;
    // Sections outside of the file are left out later; their claimed size must not push the others away.
    if (fits(s, file)) at += std::min<u64>(s.size, 1 * GiB) + 16;
  }
}

}  // namespace elf

bool is_elf(Bytes bytes) { return starts_with(bytes, "\177ELF"); }

u64 elf_extent(Bytes bytes) {
  elf::File f{bytes, {}, {}, {}, {}};
  const auto h = elf::read_header(bytes);
  if (!h) return bytes.size();
  f.header = *h;
  if (!elf::read_sections(f, Limits{}).empty() || !elf::read_segments(f).empty()) return bytes.size();
  u64 end = std::max(h->sections + u64{h->section_size} * f.sections.size(),
                     h->segments + u64{h->segment_size} * f.segments.size());
  for (const auto& s : f.sections)
    if (s.type != elf::kNobits && slice(bytes, s.offset, s.size)) end = std::max(end, s.offset + s.size);
  for (const auto& s : f.segments)
    if (slice(bytes, s.offset, s.file_size)) end = std::max(end, s.offset + s.file_size);
  return std::min<u64>(end, bytes.size());
}

Result<Image, std::string> read_elf(std::shared_ptr<const std::vector<u8>> storage, const Limits& limits) {
  elf::File f{Bytes{*storage}, {}, {}, {}, {}};
  const auto header = elf::read_header(f.bytes);
  if (!header) return Err{header.error()};
  f.header = *header;
  std::string wrong = elf::read_sections(f, limits);
  if (wrong.empty()) wrong = elf::read_segments(f);
  if (!wrong.empty()) return Err{wrong};

  Image image;
  image.storage = std::move(storage);
  f.image_section.assign(f.sections.size(), -1);
  if (f.header.type == elf::kRelocatable) elf::place_sections(f);
  for (u64 i = 1; i < f.sections.size(); i++)
    if (f.sections[i].flags & elf::kAlloc && f.sections[i].size) elf::add_section(f, image, i);
  if (image.sections.empty()) elf::add_segments(f, image);
  elf::drop_overlaps(image);
  elf::sort_sections(f, image);
  image.index_code();
  elf::describe(f, image);
  if (std::none_of(image.sections.begin(), image.sections.end(), [](const Section& s) { return s.code; }))
    return Err{std::string{"ELF: no section or segment with code in it"}};
  if (f.header.entry && image.code_at(f.header.entry) && !image.relocatable())
    image.roots.push_back({f.header.entry, Because::entry});
  elf::add_symbols(f, image, limits);
  elf::add_relocations(f, image, limits);
  return image;
}

}  // namespace trapline::scan
