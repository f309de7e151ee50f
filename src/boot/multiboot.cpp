#include "boot/multiboot.h"

#include <algorithm>

#include "base/trace.h"

namespace trapline::boot::loader {

namespace {

// Sections beyond this are not worth guest memory.
constexpr u64 kMaxSectionBytes = 64 * MiB;
constexpr u32 kMaxSections = 4096;

// By how much to move an image linked at [start, start + size); modulo 2^64.
Result<u64, std::string> displacement(LoadContext& c, Gpa start, u64 size,
                                      const std::optional<Relocation>& relocation) {
  if (!relocation) return u64{0};
  const Relocation& r = *relocation;
  using Preference = Relocation::Preference;
  const bool in_place = start >= r.min && start <= r.max && size <= r.max - start + 1 && start.raw % r.alignment == 0;
  if (r.preference == Preference::none && in_place && c.place.claim(start, size) == Placer::Claim::ok) {
    c.place.release(start);
    return u64{0};
  }
  const Gpa end = std::min(r.max.wrapping_add(1), Gpa{kPciHoleStart}), from = std::max(r.min, Gpa{MiB});
  const auto at = r.preference == Preference::highest ? c.place.highest(size, r.alignment, from, end)
                                                      : c.place.lowest(size, r.alignment, from, end);
  if (!at)
    return Err{fmt::format("no {} of RAM between {} and {} for the relocatable image, the guest has {}: {}",
                           human_size(size), r.min, r.max, human_size(c.ram.size()),
                           memory_remedy(std::max(2 * c.ram.size(), from.raw + size)))};
  c.place.release(*at);
  return *at - start;
}

struct Span {
  Gpa start;
  u64 size = 0;
};

Span extent(const ElfImage& elf) {
  Gpa start{~u64{0}}, end;
  for (const ElfSegment& s : elf.segments) {
    start = std::min(start, s.paddr);
    end = std::max(end, s.paddr.wrapping_add(s.memory_size));
  }
  return {start, end - start};
}

}  // namespace

Result<LoadedImage, std::string> load_by_addresses(LoadContext& c, u64 header, const AddressFields& f, Gpa entry,
                                                   const std::optional<Relocation>& relocation) {
  const auto damaged = [](const char* what) { return Err{fmt::format("damaged multiboot header: {}", what)}; };
  const bool from_start = f.load_addr == 0xffffffff;  // version 2: load from the beginning of the file
  const u64 load_addr = from_start ? u64{f.header_addr} - header : f.load_addr;
  if (from_start && f.header_addr < header) return damaged("header_addr is below the header's place in the file");
  if (f.header_addr < load_addr) return damaged("header_addr is below load_addr");
  if (f.header_addr - load_addr > header) return damaged("load_addr lies before the beginning of the file");
  const u64 offset = header - (f.header_addr - load_addr);
  if (f.load_end_addr && f.load_end_addr < load_addr) return damaged("load_end_addr is below load_addr");
  const u64 file_size = f.load_end_addr ? f.load_end_addr - load_addr : c.request.kernel.size() - offset;
  const auto bytes = slice(c.request.kernel, offset, file_size);
  if (!bytes)
    return Err{
        fmt::format("truncated: the multiboot header announces {} bytes from {:#x}, the file has {}: get a whole copy",
                    file_size, offset, c.request.kernel.size())};
  if (f.bss_end_addr && f.bss_end_addr < load_addr + file_size)
    return damaged("bss_end_addr is below the end of the data");
  const u64 size = f.bss_end_addr ? f.bss_end_addr - load_addr : file_size;
  if (size == 0) return damaged("nothing to load");
  if (entry < Gpa{load_addr} || entry - Gpa{load_addr} >= size)
    return damaged("the entry point lies outside of the image");

  const auto delta = displacement(c, Gpa{load_addr}, size, relocation);
  if (!delta) return Err{delta.error()};
  const Gpa start{load_addr + *delta};
  const auto claim = start.raw + size > kPciHoleStart ? Placer::Claim::not_ram : c.place.claim(start, size);
  if (claim != Placer::Claim::ok) return Err{claim_error(c, claim, "the multiboot image", start, size)};
  put_image(c, start, *bytes);
  zero(c, start.wrapping_add(file_size), size - file_size);
  return LoadedImage{start, start.wrapping_add(size), entry.wrapping_add(*delta), std::nullopt};
}

Result<LoadedImage, std::string> load_by_elf(LoadContext& c, std::optional<Gpa> entry,
                                             const std::optional<Relocation>& relocation) {
  if (!is_elf(c.request.kernel))
    return Err{std::string("multiboot header without load addresses, and not an ELF: the image is damaged")};
  auto elf = parse_elf(c.request.kernel);
  if (!elf) return Err{elf.error()};
  if (!entry) entry = elf->physical_entry();
  if (!entry || !elf->holds_physical(*entry))
    return Err{std::string("the entry point lies outside of every ELF segment: the image is damaged")};
  const Span span = extent(*elf);
  const auto delta = displacement(c, span.start, span.size, relocation);
  if (!delta) return Err{delta.error()};
  if (auto ok = load_segments(c, *elf, *delta); !ok) return Err{ok.error()};
  const Gpa start = span.start.wrapping_add(*delta);
  return LoadedImage{start, start.wrapping_add(span.size), entry->wrapping_add(*delta), std::move(*elf)};
}

namespace {

// Above the image, where kernels leave room; an image that asked for the highest place has none above it.
std::optional<Gpa> place_beside(LoadContext& c, const LoadedImage& image, u64 size, u64 alignment) {
  auto at = c.place.lowest(size, alignment, std::max(image.end, Gpa{MiB}), Gpa{kPciHoleStart});
  if (!at) at = c.place.lowest(size, alignment, Gpa{MiB}, Gpa{kPciHoleStart});
  return at;
}

}  // namespace

Result<std::vector<LoadedModule>, std::string> load_multiboot_modules(LoadContext& c, const LoadedImage& image) {
  std::vector<LoadedModule> out;
  const auto add = [&](Bytes bytes, const std::string& name, const std::string& arguments) {
    const auto at = place_beside(c, image, bytes.size(), kPageSize);
    if (!at) return false;
    put_image(c, *at, bytes);
    out.push_back({*at, at->wrapping_add(bytes.size()), named_string(name, arguments)});
    TRACE(boot, "multiboot: module {}+{:#x}", *at, bytes.size());
    return true;
  };
  const auto too_large = [&](const char* what, Bytes bytes) {
    return Err{fmt::format("the {} is too large: {} in {} of guest memory: {}", what, human_size(bytes.size()),
                           human_size(c.ram.size()), memory_remedy(2 * (bytes.size() + (image.end - image.start))))};
  };
  if (!c.request.initrd.empty() && !add(c.request.initrd, "initrd", "")) return too_large("initrd", c.request.initrd);
  for (const BootModule& m : c.request.modules)
    if (!add(m.bytes, m.name, m.arguments)) return too_large("module", m.bytes);
  return out;
}

std::vector<std::byte> load_sections(LoadContext& c, const LoadedImage& image) {
  if (!image.elf || image.elf->section_headers.empty() || image.elf->section_count > kMaxSections) return {};
  const ElfImage& elf = *image.elf;
  std::vector<std::byte> table(elf.section_headers.begin(), elf.section_headers.end());
  const auto sections = elf.sections();
  const u64 addr_offset = elf.is64 ? 16 : 12;
  u64 total = 0;
  for (std::size_t i = 0; i < sections.size(); i++) {
    const ElfSection& s = sections[i];
    if (s.address != Gva{} || s.type == elf::sht_nobits || s.size == 0) continue;
    total += std::min(s.size, kMaxSectionBytes);
    if (total > kMaxSectionBytes) return {};
    const u64 alignment = power_of_two(s.alignment) && s.alignment <= kPageSize ? s.alignment : 1;
    const auto at = place_beside(c, image, s.size, alignment);
    if (!at) return {};
    put(c.ram, *at, *slice(elf.image, s.offset, s.size));
    std::memcpy(table.data() + i * elf.section_entry_size + addr_offset, &*at, elf.is64 ? 8 : 4);
  }
  return table;
}

std::string named_string(const std::string& name, const std::string& arguments) {
  return arguments.empty() ? name : name + " " + arguments;
}

std::string full_command_line(const BootRequest& request) {
  return named_string(request.kernel_name.empty() ? "kernel" : request.kernel_name, request.command_line);
}

}  // namespace trapline::boot::loader
