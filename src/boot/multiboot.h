// What multiboot 1 and 2 share: images by address fields or by ELF, modules, ELF section headers.
#pragma once

#include "boot/loader.h"

namespace trapline::boot::loader {

// The address fields of a header ("a.out kludge" in version 1, the address tag in version 2).
struct AddressFields {
  u32 header_addr = 0, load_addr = 0, load_end_addr = 0, bss_end_addr = 0;
};

struct LoadedImage {
  Gpa start, end;  // all of the image lies between
  Gpa entry;
  std::optional<ElfImage> elf;  // when loaded as ELF
};

// How a version 2 kernel may be moved (relocatable header tag).
struct Relocation {
  Gpa min, max;
  u64 alignment = 1;
  enum class Preference : u32 { none = 0, lowest = 1, highest = 2 } preference = Preference::none;
};

// The image as the address fields describe it. `header`: the header's offset in the file. `entry`: link-time physical.
Result<LoadedImage, std::string> load_by_addresses(LoadContext& c, u64 header, const AddressFields& fields, Gpa entry,
                                                   const std::optional<Relocation>& relocation);
// The image as its ELF headers describe it; `entry` overrides the ELF entry point (link-time physical).
Result<LoadedImage, std::string> load_by_elf(LoadContext& c, std::optional<Gpa> entry,
                                             const std::optional<Relocation>& relocation);

struct LoadedModule {
  Gpa start, end;
  std::string string;  // "name arguments"
};
// The initrd first (its name is "initrd"), then the modules: page-aligned, above the kernel if there is room, below
// 3 GiB.
Result<std::vector<LoadedModule>, std::string> load_multiboot_modules(LoadContext& c, const LoadedImage& image);

// The section header table with sh_addr made right for the sections that had to be loaded on their own (symbols,
// strings). Empty when there is no table or no room: it serves debuggers only.
std::vector<std::byte> load_sections(LoadContext& c, const LoadedImage& image);

// "name arguments", for the kernel and for modules alike. Specifications leave the strings' form open. GRUB legacy and
// QEMU begin both with the file's name, GRUB 2 begins neither; what expects a name drops the first word of both unless
// the loader calls itself GRUB 2 (Xen). So the name comes first, always.
std::string named_string(const std::string& name, const std::string& arguments);
std::string full_command_line(const BootRequest& request);

}  // namespace trapline::boot::loader
