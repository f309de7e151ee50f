// ELF32 and ELF64 for x86: executables, shared objects, relocatable files (kernel modules), vmlinux. System V gABI
// chapters 4 and 5, and the i386 and x86-64 psABIs. Everything in the file is hostile: what does not fit is left out
// with a warning, a header that makes no sense is an error.
#pragma once

#include <string>

#include "base/result.h"
#include "scan/image.h"
#include "scan/limits.h"

namespace trapline::scan {

bool is_elf(Bytes bytes);
// `storage` holds the file. Error: one line without the file's name.
Result<Image, std::string> read_elf(std::shared_ptr<const std::vector<u8>> storage, const Limits& limits);
// From where on `bytes` is no part of the ELF file that it begins with (a bzImage appends relocations).
u64 elf_extent(Bytes bytes);

}  // namespace trapline::scan
