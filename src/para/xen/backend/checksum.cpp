#include "para/xen/backend/checksum.h"

namespace trapline::para::xen {

namespace {

constexpr std::size_t kEthernet = 14, kVlan = 4, kIpLeast = 20;
constexpr u16 kVlanType = 0x8100, kIpv4 = 0x0800;
constexpr u8 kTcp = 6, kUdp = 17;

u16 get16(std::span<const u8> at, std::size_t offset) { return static_cast<u16>(at[offset] << 8 | at[offset + 1]); }

u32 sum(std::span<const u8> bytes) {
  u32 total = 0;
  for (std::size_t i = 0; i + 1 < bytes.size(); i += 2) total += get16(bytes, i);
  return bytes.size() % 2 ? total + (u32{bytes.back()} << 8) : total;
}

}  // namespace

bool fill_checksum(std::span<u8> frame) {
  std::size_t at = kEthernet;
  if (frame.size() < kEthernet + kVlan + kIpLeast) return false;
  u16 type = get16(frame, at - 2);
  if (type == kVlanType) at += kVlan, type = get16(frame, at - 2);
  if (type != kIpv4) return false;
  const std::span<u8> ip = frame.subspan(at);
  const std::size_t header = (ip[0] & 15) * 4u, total = get16(ip, 2);
  const bool fragment = get16(ip, 6) & 0x3fff;  // more of it, or from elsewhere than the start
  if (ip[0] >> 4 != 4 || header < kIpLeast || total < header || total > ip.size() || fragment) return false;
  const u8 protocol = ip[9];
  const std::size_t place = protocol == kTcp ? 16 : 6;
  const std::span<u8> segment = ip.subspan(header, total - header);
  if ((protocol != kTcp && protocol != kUdp) || segment.size() < place + 2) return false;
  segment[place] = segment[place + 1] = 0;
  u32 value = sum(segment) + sum(ip.subspan(12, 8)) + protocol + static_cast<u32>(segment.size());
  while (value >> 16) value = (value & 0xffff) + (value >> 16);
  u16 result = static_cast<u16>(~value);
  if (protocol == kUdp && result == 0) result = 0xffff;
  segment[place] = static_cast<u8>(result >> 8);
  segment[place + 1] = static_cast<u8>(result);
  return true;
}

}  // namespace trapline::para::xen
