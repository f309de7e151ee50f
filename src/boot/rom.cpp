#include "boot/rom.h"

#include <algorithm>
#include <cstring>

#include "base/trace.h"

namespace trapline::boot {

Result<void, std::string> load_rom(GuestMemory& ram, Bytes image, const std::string& name) {
  constexpr u64 kShadow = 128 * KiB;
  const auto rom = ram.rom();
  if (image.empty() || image.size() != rom.size())
    return Err{fmt::format("--firmware {}: the file has changed while it was read: start again", name)};
  std::memcpy(rom.data(), image.data(), rom.size());
  const u64 shadowed = std::min<u64>(kShadow, rom.size());
  const auto shadow = ram.bytes(Gpa{MiB - shadowed}, shadowed);
  if (!shadow) return Err{fmt::format("--firmware {}: there is no RAM below 1 MiB: give --memory 64M or more", name)};
  std::memcpy(shadow->data(), rom.data() + rom.size() - shadowed, shadowed);
  TRACE(boot, "firmware: {} bytes of ROM, {} below 1 MiB", rom.size(), shadowed);
  return {};
}

}  // namespace trapline::boot
