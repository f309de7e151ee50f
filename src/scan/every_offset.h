// Sensitive instructions at every byte offset: what a hostile guest could jump into. A page may run in a cage only if
// the instructions that a cage bars are at none of them.
#pragma once

#include "scan/scan.h"

namespace trapline::scan {

// To `scan.hidden`, by address: those of the code sections that do not start where the traversal found an instruction
// to start, up to options.most_findings. Two threads.
void add_hidden_instructions(Scan& scan, isa::CodeSize size, const ScanOptions& options);

}  // namespace trapline::scan
