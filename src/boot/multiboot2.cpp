// Multiboot2 specification 2.0.
#include <algorithm>

#include "base/trace.h"
#include "boot/entry_state.h"
#include "boot/multiboot.h"

namespace trapline::boot::loader {

namespace {

constexpr u32 kHeaderMagic = 0xe85250d6, kBootMagic = 0x36d76289, kArchitectureI386 = 0;
constexpr u64 kSearch = 32768, kFixedHeader = 16;

enum class HeaderTag : u16 {
  end = 0,
  information_request = 1,
  address = 2,
  entry_address = 3,
  console_flags = 4,
  framebuffer = 5,
  module_alignment = 6,
  efi_boot_services = 7,
  efi32_entry = 8,
  efi64_entry = 9,
  relocatable = 10,
};
constexpr u16 kOptional = 1;
constexpr u32 kConsoleRequired = 1;

enum class InfoTag : u32 {
  end = 0,
  command_line = 1,
  loader_name = 2,
  module = 3,
  basic_memory = 4,
  memory_map = 6,
  elf_sections = 9,
  acpi_old = 14,
  acpi_new = 15,
  load_base = 21,
};
// All up to here are understood; those without a tag above have nothing to say on this machine.
constexpr u32 kLastInfoTag = 21;

struct Wishes {
  std::optional<AddressFields> addresses;
  std::optional<u32> entry;
  std::optional<Relocation> relocation;
};

std::string truncated_tag(u16 type) { return fmt::format("damaged multiboot2 header: tag {} is cut short", type); }

Result<void, std::string> check_requests(Bytes tag) {
  for (u64 at = 8; at + 4 <= tag.size(); at += 4)
    if (const u32 type = load_or_zero<u32>(tag, at); type > kLastInfoTag)
      return Err{fmt::format("multiboot2: the kernel requires an unknown information tag ({})", type)};
  return {};
}

Result<Relocation, std::string> parse_relocation(Bytes tag) {
  if (tag.size() < 24) return Err{truncated_tag(10)};
  Relocation r{Gpa{load_or_zero<u32>(tag, 8)}, Gpa{load_or_zero<u32>(tag, 12)}, load_or_zero<u32>(tag, 16)};
  if (r.alignment == 0) r.alignment = 1;
  if (!power_of_two(r.alignment) || r.min > r.max)
    return Err{fmt::format("damaged multiboot2 header: relocatable between {} and {}, alignment {:#x}", r.min, r.max,
                           r.alignment)};
  const u32 preference = load_or_zero<u32>(tag, 20);
  r.preference = preference <= 2 ? static_cast<Relocation::Preference>(preference) : Relocation::Preference::none;
  return r;
}

// One header tag. Error: what it requires and cannot have.
Result<void, std::string> apply(Bytes tag, Wishes& wishes) {
  const u16 type = load_or_zero<u16>(tag, 0);
  const bool optional = load_or_zero<u16>(tag, 2) & kOptional;
  switch (static_cast<HeaderTag>(type)) {
    case HeaderTag::information_request:
      return optional ? Result<void, std::string>{} : check_requests(tag);
    case HeaderTag::address:
      if (tag.size() < 24) return Err{truncated_tag(type)};
      wishes.addresses = load<AddressFields>(tag, 8);
      return {};
    case HeaderTag::entry_address:
      if (tag.size() < 12) return Err{truncated_tag(type)};
      wishes.entry = load<u32>(tag, 8);
      return {};
    case HeaderTag::relocatable: {
      const auto relocation = parse_relocation(tag);
      if (!relocation) return Err{relocation.error()};
      wishes.relocation = *relocation;
      return {};
    }
    case HeaderTag::console_flags:
      if (optional || !(load_or_zero<u32>(tag, 8) & kConsoleRequired)) return {};
      return Err{
          std::string("multiboot2: the kernel requires a text or graphics console, and this machine has none: use a "
                      "kernel for a serial console")};
    case HeaderTag::efi_boot_services:
      if (optional) return {};
      return Err{std::string("multiboot2: the kernel requires EFI boot services, and this machine has no EFI")};
    // A framebuffer is a preference, answered by leaving out its information tag, as loaders do without a display: what
    // cannot go on without a console says so by console_flags. Page alignment of modules is what we always do; the EFI
    // entry points count on EFI platforms only (specification 3.1.8, 3.1.9).
    case HeaderTag::framebuffer:
    case HeaderTag::end:
    case HeaderTag::module_alignment:
    case HeaderTag::efi32_entry:
    case HeaderTag::efi64_entry:
      return {};
  }
  if (optional) return {};
  return Err{fmt::format("multiboot2: the kernel requires an unknown header tag ({})", type)};
}

Result<Wishes, std::string> parse_header(Bytes image, u64 at) {
  const u64 length = load_or_zero<u32>(image, at + 8);
  if (length < kFixedHeader || at + length > kSearch)
    return Err{fmt::format("damaged multiboot2 header: length {} at {:#x} is not within the first 32 KiB", length, at)};
  const auto header = slice(image, at, length);
  if (!header) return Err{std::string("truncated: the file ends inside its multiboot2 header: get a whole copy")};
  Wishes wishes;
  for (u64 offset = kFixedHeader; offset + 8 <= length;) {
    const u16 type = load_or_zero<u16>(*header, offset);
    const u64 size = load_or_zero<u32>(*header, offset + 4);
    if (type == 0) break;
    if (size < 8 || size > length - offset) return Err{truncated_tag(type)};
    if (auto ok = apply(header->subspan(offset, size), wishes); !ok) return Err{ok.error()};
    offset += *align_up(size, 8);
  }
  if (wishes.addresses && !wishes.entry)
    return Err{std::string("damaged multiboot2 header: an address tag without an entry address tag")};
  return wishes;
}

// The information structure: an 8-byte head, then tags padded to 8 bytes.
class InfoWriter {
 public:
  InfoWriter() { u32s({0, 0}); }
  template <class... Parts>
  void tag(InfoTag type, const Parts&... parts) {
    const u64 start = data_.size();
    u32s({static_cast<u32>(type), 0});
    (append(Bytes(parts)), ...);
    patch(start + 4, static_cast<u32>(data_.size() - start));
    data_.resize(*align_up(data_.size(), 8));
  }
  Bytes finish() {
    tag(InfoTag::end);
    patch(0, static_cast<u32>(data_.size()));
    return data_;
  }

 private:
  void append(Bytes bytes) { data_.insert(data_.end(), bytes.begin(), bytes.end()); }
  void u32s(std::initializer_list<u32> values) { append(std::as_bytes(std::span{values.begin(), values.size()})); }
  void patch(u64 at, u32 value) { std::memcpy(data_.data() + at, &value, 4); }
  std::vector<std::byte> data_;
};

template <std::size_t N>
Bytes words(const u32 (&values)[N]) {
  return std::as_bytes(std::span{values});
}

Bytes with_nul(const std::string& text) { return std::as_bytes(std::span{text.c_str(), text.size() + 1}); }

struct MapEntry {
  u64 base = 0, length = 0;
  u32 type = 0, reserved = 0;
};

void write_memory(InfoWriter& info, const GuestMemory& ram) {
  const u32 basic[] = {static_cast<u32>(kLowMemoryKiB), static_cast<u32>((ram.low_end() - MiB) / KiB)};
  info.tag(InfoTag::basic_memory, words(basic));
  std::vector<MapEntry> map;
  for (const MemoryRange& r : memory_map(ram)) map.push_back({r.start.raw, r.size, static_cast<u32>(r.type), 0});
  const u32 head[] = {sizeof(MapEntry), 0};
  info.tag(InfoTag::memory_map, words(head), std::as_bytes(std::span{map}));
}

// Copies of the root pointer: its first 20 bytes are the ACPI 1.0 structure; revision 2 and later carry their length
// at 20.
void write_acpi(InfoWriter& info, const LoadContext& c) {
  if (c.rsdp == Gpa{}) return;
  const auto old = c.ram.bytes(c.rsdp, 36);
  if (!old) return;
  const Bytes rsdp = *old;
  info.tag(InfoTag::acpi_old, rsdp.first(20));
  if (load_or_zero<u8>(rsdp, 15) >= 2) info.tag(InfoTag::acpi_new, rsdp.first(36));
}

std::optional<Gpa> write_info(LoadContext& c, const LoadedImage& image, const std::vector<LoadedModule>& modules) {
  InfoWriter info;
  info.tag(InfoTag::command_line, with_nul(full_command_line(c.request)));
  info.tag(InfoTag::loader_name, with_nul(kLoaderName));
  for (const LoadedModule& m : modules) {
    const u32 range[] = {static_cast<u32>(m.start.raw), static_cast<u32>(m.end.raw)};
    info.tag(InfoTag::module, words(range), with_nul(m.string));
  }
  write_memory(info, c.ram);
  if (const auto table = load_sections(c, image); !table.empty()) {
    const u32 head[] = {image.elf->section_count, image.elf->section_entry_size, image.elf->section_names};
    info.tag(InfoTag::elf_sections, words(head), Bytes(table));
  }
  write_acpi(info, c);
  const u32 base[] = {static_cast<u32>(image.start.raw)};
  info.tag(InfoTag::load_base, words(base));
  const Bytes bytes = info.finish();
  const auto at = place_low(c, bytes.size(), 8);
  if (at) put(c.ram, *at, bytes);
  return at;
}

}  // namespace

std::optional<u64> find_multiboot2(Bytes image) {
  for (u64 at = 0; at + kFixedHeader <= std::min<u64>(image.size(), kSearch); at += 8) {
    if (load_or_zero<u32>(image, at) != kHeaderMagic || load_or_zero<u32>(image, at + 4) != kArchitectureI386) continue;
    if (kHeaderMagic + kArchitectureI386 + load_or_zero<u32>(image, at + 8) + load_or_zero<u32>(image, at + 12) == 0)
      return at;
  }
  return std::nullopt;
}

Loaded load_multiboot2(LoadContext& c, u64 header) {
  const auto wishes = parse_header(c.request.kernel, header);
  if (!wishes) return Err{wishes.error()};
  std::optional<Gpa> entry;
  if (wishes->entry) entry = Gpa{*wishes->entry};
  const auto image = wishes->addresses ? load_by_addresses(c, header, *wishes->addresses, *entry, wishes->relocation)
                                       : load_by_elf(c, entry, wishes->relocation);
  if (!image) return Err{image.error()};
  const auto modules = load_multiboot_modules(c, *image);
  if (!modules) return Err{modules.error()};
  const auto info = write_info(c, *image, *modules);
  if (!info) return Err{no_room(c.ram)};
  TRACE(boot, "multiboot2: image {}-{} entry {} info {}", image->start, image->end, image->entry, *info);

  if (!enter_protected(c, image->entry.raw, kMultibootSelectors)) return Err{no_room(c.ram)};
  c.cpu.gpr[isa::rax] = kBootMagic;
  c.cpu.gpr[isa::rbx] = info->raw;
  return BootInfo{BootFormat::multiboot2, image->entry};
}

}  // namespace trapline::boot::loader
