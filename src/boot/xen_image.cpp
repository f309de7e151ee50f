#include "boot/xen_image.h"

#include <cstdlib>
#include <cstring>

#include "para/xen/abi.h"

namespace trapline::boot::loader {

namespace {

constexpr std::string_view kOwner{"Xen\0", 4};

std::string text(Bytes bytes) {
  std::string s(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  return s.substr(0, s.find('\0'));
}

// Numbers come in the width that the kernel's assembler chose.
std::optional<u64> number(Bytes bytes) {
  if (bytes.size() == 4) return load<u32>(bytes, 0);
  return bytes.size() == 8 ? load<u64>(bytes, 0) : std::nullopt;
}

std::optional<Gva> linear(Bytes bytes) {
  const auto value = number(bytes);
  return value ? std::optional{Gva{*value}} : std::nullopt;
}

void take(XenNotes& notes, u32 type, Bytes value) {
  switch (type) {
    case XEN_ELFNOTE_ENTRY:
      notes.entry = linear(value);
      break;
    case XEN_ELFNOTE_HYPERCALL_PAGE:
      notes.hypercall_page = linear(value);
      break;
    case XEN_ELFNOTE_VIRT_BASE:
      notes.virt_base = linear(value);
      break;
    case XEN_ELFNOTE_PADDR_OFFSET:
      notes.paddr_offset = number(value);
      break;
    case XEN_ELFNOTE_INIT_P2M:
      notes.init_p2m = linear(value);
      break;
    case XEN_ELFNOTE_MOD_START_PFN:
      notes.mod_start_pfn = number(value).value_or(0) != 0;
      break;
    case XEN_ELFNOTE_PHYS32_ENTRY:
      notes.pvh = true;
      break;
    case XEN_ELFNOTE_GUEST_OS:
      notes.guest_os = text(value);
      break;
    case XEN_ELFNOTE_LOADER:
      notes.loader = text(value);
      break;
    case XEN_ELFNOTE_XEN_VERSION:
      notes.xen_version = text(value);
      break;
    case XEN_ELFNOTE_FEATURES:
      notes.features = text(value);
      break;
    default:
      break;
  }
}

void read(Bytes segment, XenNotes& notes) {
  for (u64 at = 0; at + 12 <= segment.size();) {
    const u64 name_size = *load<u32>(segment, at), value_size = *load<u32>(segment, at + 4);
    const u32 type = *load<u32>(segment, at + 8);
    const u64 name_at = at + 12, value_at = name_at + (name_size + 3) / 4 * 4;
    const auto name = slice(segment, name_at, name_size), value = slice(segment, value_at, value_size);
    if (!name || !value) return;
    if (name->size() == kOwner.size() && std::memcmp(name->data(), kOwner.data(), kOwner.size()) == 0) {
      notes.any = true;
      take(notes, type, *value);
    }
    at = value_at + (value_size + 3) / 4 * 4;
  }
}

// KEY=VALUE,KEY=VALUE...; numbers as C writes them. HYPERCALL_PAGE counts pages from VIRT_BASE.
void read_legacy(const std::string& all, XenNotes& notes) {
  notes.any = notes.legacy = true;
  for (std::size_t at = 0; at < all.size();) {
    const std::size_t end = std::min(all.find(',', at), all.size());
    const std::string item = all.substr(at, end - at);
    at = end + 1;
    const std::size_t equals = item.find('=');
    if (equals == std::string::npos) continue;
    const std::string key = item.substr(0, equals), value = item.substr(equals + 1);
    const u64 number = std::strtoull(value.c_str(), nullptr, 0);
    if (key == "LOADER") notes.loader = value;
    if (key == "GUEST_OS") notes.guest_os = value;
    if (key == "XEN_VER") notes.xen_version = value;
    if (key == "FEATURES") notes.features = value;
    if (key == "VIRT_BASE") notes.virt_base = Gva{number};
    if (key == "VIRT_ENTRY") notes.entry = Gva{number};
    if (key == "ELF_PADDR_OFFSET") notes.paddr_offset = number;
    if (key == "HYPERCALL_PAGE")
      notes.hypercall_page = notes.virt_base.value_or(Gva{}).wrapping_add(number * kPageSize);
  }
}

}  // namespace

XenNotes xen_notes(const ElfImage& elf) {
  XenNotes notes;
  for (const Bytes segment : elf.notes) read(segment, notes);
  if (notes.any) return notes;
  if (const auto section = elf.section("__xen_guest")) read_legacy(text(*section), notes);
  return notes;
}

std::optional<Bytes> bzimage_payload(Bytes image) {
  const u8 sectors = load_or_zero<u8>(image, 0x1f1);
  if (load_or_zero<u16>(image, 0x206) < 0x208) return std::nullopt;
  const u64 start = (u64{sectors ? sectors : u8{4}} + 1) * 512 + load_or_zero<u32>(image, 0x248);
  return slice(image, start, load_or_zero<u32>(image, 0x24c));
}

}  // namespace trapline::boot::loader
