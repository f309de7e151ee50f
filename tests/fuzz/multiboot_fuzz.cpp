// Multiboot headers with their checksums put right, so that mutations reach what lies behind the check.
#include <vector>

#include "boot_input.h"

using namespace trapline;

namespace {

u32 word(const std::vector<std::byte>& image, std::size_t at) {
  u32 v;
  std::memcpy(&v, image.data() + at, 4);
  return v;
}

void put(std::vector<std::byte>& image, std::size_t at, u32 v) { std::memcpy(image.data() + at, &v, 4); }

void fix_checksums(std::vector<std::byte>& image) {
  for (std::size_t at = 0; at + 12 <= std::min<std::size_t>(image.size(), 32768); at += 4) {
    if (word(image, at) == 0x1badb002) put(image, at + 8, 0u - 0x1badb002 - word(image, at + 4));
    if (word(image, at) == 0xe85250d6 && at + 16 <= image.size())
      put(image, at + 12, 0u - 0xe85250d6 - word(image, at + 4) - word(image, at + 8));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
  fuzz::BootHead head;
  boot::Bytes kernel;
  if (!fuzz::split(data, size, &head, &kernel)) return 0;
  std::vector<std::byte> image(kernel.begin(), kernel.end());
  fix_checksums(image);
  fuzz::boot_once(head, image);
  return 0;
}
