// Sensitive instructions at every byte offset: what a hostile guest could jump into. A page may run in a cage only if
// the instructions that a cage bars are at none of them.
#pragma once

#include "scan/scan.h"

namespace trapline::scan {

// Those of the code sections that do not start where the traversal found an instruction to start. Two threads.
std::vector<Finding> hidden_instructions(const CodeMap& map, isa::CodeSize size, isa::Vendor vendor);

}  // namespace trapline::scan
