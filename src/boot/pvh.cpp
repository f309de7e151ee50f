// PVH direct boot: xen/include/public/arch-x86/hvm/start_info.h describes the structures, docs/misc/pvh.markdown in
// Xen's tree the entry state: 32-bit protected mode, paging off, EBX = hvm_start_info.
#include "base/trace.h"
#include "boot/entry_state.h"
#include "boot/loader.h"

namespace trapline::boot::loader {

namespace {

constexpr u32 kStartMagic = 0x336ec578;

struct StartInfo {
  u32 magic = kStartMagic, version = 1, flags = 0, nr_modules = 0;
  u64 modlist_paddr = 0, cmdline_paddr = 0, rsdp_paddr = 0, memmap_paddr = 0;
  u32 memmap_entries = 0, reserved = 0;
};
static_assert(sizeof(StartInfo) == 56);

struct ModuleEntry {
  u64 paddr = 0, size = 0, cmdline_paddr = 0, reserved = 0;
};

struct MemoryEntry {
  u64 addr = 0, size = 0;
  u32 type = 0, reserved = 0;
};

Result<ModuleEntry, std::string> load_module(LoadContext& c, Bytes bytes, const std::string& arguments,
                                             const char* what) {
  const auto at = c.place.highest(bytes.size(), kPageSize, Gpa{MiB}, Gpa{kPciHoleStart});
  if (!at)
    return Err{fmt::format("the {} is too large: {} in {} of guest memory: {}", what, human_size(bytes.size()),
                           human_size(c.ram.size()), memory_remedy(2 * (bytes.size() + c.request.kernel.size())))};
  put_image(c, *at, bytes);
  ModuleEntry entry{at->raw, bytes.size(), 0, 0};
  if (!arguments.empty()) {
    const auto text = place_string(c, arguments);
    if (!text) return Err{no_room(c.ram)};
    entry.cmdline_paddr = text->raw;
  }
  return entry;
}

// The initrd comes first, as Linux expects; then the modules in their order.
Result<std::vector<ModuleEntry>, std::string> load_modules(LoadContext& c) {
  std::vector<ModuleEntry> out;
  if (!c.request.initrd.empty()) {
    const auto entry = load_module(c, c.request.initrd, "", "initrd");
    if (!entry) return Err{entry.error()};
    out.push_back(*entry);
  }
  for (const BootModule& m : c.request.modules) {
    const auto entry = load_module(c, m.bytes, m.arguments, "module");
    if (!entry) return Err{entry.error()};
    out.push_back(*entry);
  }
  return out;
}

template <class T>
std::optional<Gpa> place_array(LoadContext& c, const std::vector<T>& items) {
  const auto at = place_low(c, items.size() * sizeof(T), 8);
  if (at) put(c.ram, *at, std::as_bytes(std::span{items}));
  return at;
}

}  // namespace

Loaded load_pvh(LoadContext& c, const ElfImage& elf, Gpa entry) {
  if (!elf.holds_physical(entry))
    return Err{
        fmt::format("the PVH note's entry point {} lies outside of every ELF segment: the image is damaged", entry)};
  if (auto ok = load_segments(c, elf, 0); !ok) return Err{ok.error()};
  const auto modules = load_modules(c);
  if (!modules) return Err{modules.error()};
  std::vector<MemoryEntry> memory;
  for (const MemoryRange& r : memory_map(c.ram)) memory.push_back({r.start.raw, r.size, static_cast<u32>(r.type), 0});

  const auto text = place_string(c, c.request.command_line);
  const auto module_list = place_array(c, *modules);
  const auto memory_list = place_array(c, memory);
  const auto start = place_low(c, sizeof(StartInfo), 8);
  if (!text || !module_list || !memory_list || !start) return Err{no_room(c.ram)};
  StartInfo info;
  info.nr_modules = static_cast<u32>(modules->size());
  info.modlist_paddr = modules->empty() ? 0 : module_list->raw;
  info.cmdline_paddr = text->raw;
  info.rsdp_paddr = c.rsdp.raw;
  info.memmap_paddr = memory_list->raw;
  info.memmap_entries = static_cast<u32>(memory.size());
  put_value(c.ram, *start, info);
  TRACE(boot, "pvh: entry {} start_info {} modules {}", entry, *start, modules->size());

  if (!enter_protected(c, entry.raw, kLinuxSelectors)) return Err{no_room(c.ram)};
  c.cpu.gpr[isa::rbx] = start->raw;
  return BootInfo{BootFormat::pvh, entry};
}

}  // namespace trapline::boot::loader
