// What a relocatable x86 kernel appends to its ELF file for its own boot code: a list of the places that hold absolute
// addresses. Those that hold addresses of code are roots. arch/x86/tools/relocs.c and boot/compressed/misc.c.
#pragma once

#include "scan/image.h"

namespace trapline::scan {

void add_kernel_relocations(Image& image);

}  // namespace trapline::scan
