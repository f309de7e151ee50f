// The names that a Linux kernel carries in its own read-only data: distribution kernels come without an ELF symbol
// table. The layouts are those of scripts/kallsyms.c since Linux 4.6; another one adds nothing but a warning.
#pragma once

#include "scan/image.h"
#include "scan/limits.h"

namespace trapline::scan {

// Adds function symbols and roots.
void add_kallsyms(Image& image, const Limits& limits);

}  // namespace trapline::scan
