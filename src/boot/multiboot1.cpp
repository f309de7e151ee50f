// Multiboot specification 0.6.96 (version 1).
#include <algorithm>

#include "base/trace.h"
#include "boot/entry_state.h"
#include "boot/multiboot.h"

namespace trapline::boot::loader {

namespace {

constexpr u32 kHeaderMagic = 0x1badb002, kBootMagic = 0x2badb002;
constexpr u64 kSearch = 8192;  // the header lies within the first 8 KiB
// Header flags: bits 0-15 are requirements, bit 16 says that the address fields are valid.
constexpr u32 kPageAlign = 1, kMemoryInfo = 2, kVideoMode = 4, kAddresses = 1u << 16;

// The information structure's flags: which of its fields are valid.
constexpr u32 kInfoMemory = 1, kInfoCommandLine = 4, kInfoModules = 8, kInfoSections = 32, kInfoMap = 64,
              kInfoLoaderName = 512;

struct Info {
  u32 flags = 0, mem_lower = 0, mem_upper = 0, boot_device = 0, cmdline = 0, mods_count = 0, mods_addr = 0;
  u32 elf_num = 0, elf_size = 0, elf_addr = 0, elf_shndx = 0;
  u32 mmap_length = 0, mmap_addr = 0, drives_length = 0, drives_addr = 0, config_table = 0, boot_loader_name = 0,
      apm_table = 0;
  u32 vbe[4] = {};
  u32 framebuffer[7] = {};
};
static_assert(sizeof(Info) == 116);

struct [[gnu::packed]] MapEntry {
  u32 size = 20;  // of what follows
  u64 base = 0, length = 0;
  u32 type = 0;
};
static_assert(sizeof(MapEntry) == 24);

struct ModuleEntry {
  u32 start = 0, end = 0, string = 0, reserved = 0;
};

bool fill_map(LoadContext& c, Info& info) {
  std::vector<MapEntry> map;
  for (const MemoryRange& r : memory_map(c.ram)) map.push_back({20, r.start.raw, r.size, static_cast<u32>(r.type)});
  const auto at = place_low(c, map.size() * sizeof(MapEntry), 8);
  if (!at) return false;
  put(c.ram, *at, std::as_bytes(std::span{map}));
  info.mmap_addr = static_cast<u32>(at->raw);
  info.mmap_length = static_cast<u32>(map.size() * sizeof(MapEntry));
  info.mem_lower = kLowMemoryKiB;
  info.mem_upper = static_cast<u32>((c.ram.low_end() - MiB) / KiB);
  info.flags |= kInfoMap | kInfoMemory;
  return true;
}

bool fill_modules(LoadContext& c, Info& info, const std::vector<LoadedModule>& modules) {
  std::vector<ModuleEntry> list;
  for (const LoadedModule& m : modules) {
    const auto text = place_string(c, m.string);
    if (!text) return false;
    list.push_back({static_cast<u32>(m.start.raw), static_cast<u32>(m.end.raw), static_cast<u32>(text->raw), 0});
  }
  const auto at = place_low(c, list.size() * sizeof(ModuleEntry), 8);
  if (!at) return false;
  put(c.ram, *at, std::as_bytes(std::span{list}));
  info.mods_addr = static_cast<u32>(at->raw);
  info.mods_count = static_cast<u32>(list.size());
  info.flags |= kInfoModules;
  return true;
}

bool fill_strings(LoadContext& c, Info& info) {
  const auto line = place_string(c, full_command_line(c.request)), name = place_string(c, kLoaderName);
  if (!line || !name) return false;
  info.cmdline = static_cast<u32>(line->raw);
  info.boot_loader_name = static_cast<u32>(name->raw);
  info.flags |= kInfoCommandLine | kInfoLoaderName;
  return true;
}

void fill_sections(LoadContext& c, Info& info, const LoadedImage& image) {
  const auto table = load_sections(c, image);
  if (table.empty()) return;
  auto at = c.place.lowest(table.size(), 8, std::max(image.end, Gpa{MiB}), Gpa{kPciHoleStart});
  if (!at) at = place_low(c, table.size(), 8);
  if (!at) return;
  put(c.ram, *at, table);
  info.elf_num = image.elf->section_count;
  info.elf_size = image.elf->section_entry_size;
  info.elf_addr = static_cast<u32>(at->raw);
  info.elf_shndx = image.elf->section_names;
  info.flags |= kInfoSections;
}

Result<LoadedImage, std::string> load_image(LoadContext& c, u64 header, u32 flags) {
  if (!(flags & kAddresses)) return load_by_elf(c, std::nullopt, std::nullopt);
  const auto fields = load<AddressFields>(c.request.kernel, header + 12);
  const auto entry = load<u32>(c.request.kernel, header + 28);
  if (!fields || !entry)
    return Err{std::string("truncated: the file ends inside its multiboot header: get a whole copy")};
  return load_by_addresses(c, header, *fields, Gpa{*entry}, std::nullopt);
}

}  // namespace

std::optional<u64> find_multiboot1(Bytes image) {
  for (u64 at = 0; at + 12 <= std::min<u64>(image.size(), kSearch); at += 4) {
    if (load_or_zero<u32>(image, at) != kHeaderMagic) continue;
    if (kHeaderMagic + load_or_zero<u32>(image, at + 4) + load_or_zero<u32>(image, at + 8) == 0) return at;
  }
  return std::nullopt;
}

Loaded load_multiboot1(LoadContext& c, u64 header) {
  const u32 flags = load_or_zero<u32>(c.request.kernel, header + 4);
  // A wish for a video mode is answered by saying nothing of one (bits 11 and 12 of the information's flags stay
  // clear), as loaders do on machines without a display: kernels that set the flag go on with the serial console.
  if (const u32 unknown = flags & 0xffff & ~(kPageAlign | kMemoryInfo | kVideoMode))
    return Err{fmt::format("multiboot: the kernel requires unknown features (header flags {:#x})", unknown)};
  const auto image = load_image(c, header, flags);
  if (!image) return Err{image.error()};
  const auto modules = load_multiboot_modules(c, *image);
  if (!modules) return Err{modules.error()};

  Info info;
  const auto at = place_low(c, sizeof info, 8);
  if (!at || !fill_strings(c, info) || !fill_map(c, info) || !fill_modules(c, info, *modules))
    return Err{no_room(c.ram)};
  fill_sections(c, info, *image);
  put_value(c.ram, *at, info);
  TRACE(boot, "multiboot: image {}-{} entry {} info {}", image->start, image->end, image->entry, *at);

  if (!enter_protected(c, image->entry.raw, kMultibootSelectors)) return Err{no_room(c.ram)};
  c.cpu.gpr[isa::rax] = kBootMagic;
  c.cpu.gpr[isa::rbx] = at->raw;
  return BootInfo{BootFormat::multiboot1, image->entry};
}

}  // namespace trapline::boot::loader
