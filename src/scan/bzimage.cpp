#include "scan/bzimage.h"

#include <fmt/format.h>

namespace trapline::scan {

namespace {

constexpr u64 kSetupSectors = 0x1f1, kBootFlag = 0x1fe, kMagic = 0x202, kVersion = 0x206, kVersionString = 0x20e,
              kPayloadOffset = 0x248, kPayloadLength = 0x24c;
constexpr u16 kPayloadSince = 0x208;

std::string version_of(Bytes bytes) {
  const u16 at = load<u16>(bytes, kVersionString).value_or(0);
  std::string text{at ? string_at(bytes, u64{at} + 0x200) : std::string_view{}};
  if (text.size() > 256) text.resize(256);
  for (char& c : text)
    if (c < ' ' || c > '~') c = '?';
  return text;
}

}  // namespace

bool is_bzimage(Bytes bytes) {
  return load<u16>(bytes, kBootFlag) == u16{0xaa55} && load<u32>(bytes, kMagic) == u32{0x53726448};
}

Result<Payload, std::string> bzimage_payload(Bytes bytes) {
  const auto protocol = load<u16>(bytes, kVersion);
  const auto offset = load<u32>(bytes, kPayloadOffset), length = load<u32>(bytes, kPayloadLength);
  if (!protocol || !offset || !length) return Err{std::string{"bzImage: truncated header"}};
  if (*protocol < kPayloadSince)
    return Err{fmt::format("bzImage: boot protocol {}.{:02} does not say where the kernel is: 2.08 and later do",
                           *protocol >> 8, *protocol & 0xff)};
  u64 sectors = bytes[kSetupSectors];
  if (sectors == 0) sectors = 4;
  const u64 start = (sectors + 1) * 512 + *offset;
  const auto payload = slice(bytes, start, *length);
  if (!payload)
    return Err{
        fmt::format("bzImage: truncated: the kernel's {} bytes at {:#x} go beyond the file's end", *length, start)};
  return Payload{*payload, version_of(bytes)};
}

}  // namespace trapline::scan
