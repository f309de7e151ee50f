// parse_elf() and everything that can be asked of what it returns.
#include "base/invariant.h"
#include "boot/elf.h"

using namespace trapline;
using namespace trapline::boot;

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
  const Bytes image = std::as_bytes(std::span{data, size});
  if (!loader::is_elf(image)) return 0;
  const auto elf = loader::parse_elf(image);
  if (!elf) return 0;
  u64 sum = loader::pvh_entry(*elf).value_or(Gpa{}).raw + elf->physical_entry().value_or(Gpa{}).raw;
  for (const auto& s : elf->segments) {
    const auto bytes = loader::slice(image, s.offset, s.file_size);
    INVARIANT(bytes && s.file_size <= s.memory_size && s.paddr.checked_add(s.memory_size), "segment {:#x}+{:#x}",
              s.offset, s.file_size);
    if (!bytes->empty()) sum += static_cast<u8>(bytes->back());
  }
  for (const auto& s : elf->sections())
    INVARIANT(s.type == loader::elf::sht_nobits || s.size == 0 || loader::slice(image, s.offset, s.size),
              "section {:#x}+{:#x}", s.offset, s.size);
  asm volatile("" ::"r"(sum));
  return 0;
}
