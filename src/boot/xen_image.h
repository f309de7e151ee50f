// What a kernel says of itself to a Xen domain builder: ELF notes of the owner "Xen" (xen/elfnote.h), or, as kernels
// before them and Mini-OS have it, the text of a section __xen_guest.
#pragma once

#include <optional>
#include <string>

#include "boot/elf.h"

namespace trapline::boot::loader {

struct XenNotes {
  std::string guest_os, loader, xen_version, features;
  std::optional<Gva> entry, hypercall_page, virt_base, init_p2m;
  std::optional<u64> paddr_offset;  // between pseudo-physical addresses and paddr of segments
  bool mod_start_pfn = false;
  bool pvh = false;     // it has PVH's entry
  bool any = false;     // was there a note at all?
  bool legacy = false;  // it was that section
};

XenNotes xen_notes(const ElfImage& elf);

// The payload of a bzImage, as it is packed. Nothing: the header does not name one.
std::optional<Bytes> bzimage_payload(Bytes image);

}  // namespace trapline::boot::loader
