// Function starts and ends from .eh_frame: stripped programs keep it. LSB Core 5.0, chapter 10.6; DWARF 4, 6.4.
#pragma once

#include "scan/image.h"
#include "scan/limits.h"

namespace trapline::scan {

// Adds a root per FDE, and a nameless symbol where there is none.
void add_unwind_entries(Image& image, const Limits& limits);

}  // namespace trapline::scan
