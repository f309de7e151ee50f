#include "devices/virtio/net_offload.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

namespace trapline::devices::virtio {

namespace {

constexpr std::size_t kMac = 14, kTag = 4, kIp6 = 40, kLeastTcp = 20;
constexpr u8 kTcp = 6, kUdp = 17;
constexpr std::size_t kLeastSegment = 48;  // fewer bytes no TCP offers; it bounds how many frames one may become

u16 big16(const std::byte* at) {
  return static_cast<u16>(std::to_integer<u16>(at[0]) << 8 | std::to_integer<u16>(at[1]));
}
void put16(std::byte* at, u32 value) {
  at[0] = static_cast<std::byte>(value >> 8);
  at[1] = static_cast<std::byte>(value);
}
u32 big32(const std::byte* at) { return u32{big16(at)} << 16 | big16(at + 2); }
void put32(std::byte* at, u32 value) {
  put16(at, value >> 16);
  put16(at + 2, value);
}

u16 fold(u64 sum) {
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<u16>(sum);
}

// Where things are in a frame with TCP or UDP.
struct Layout {
  std::size_t ip = 0, transport = 0, end = 0;  // offsets; the end as the IP header says it, at most the frame's
  u8 protocol = 0;
  bool v6 = false, fragment = false;
};

std::optional<Layout> look(std::span<const std::byte> frame) {
  Layout l;
  if (frame.size() < kMac) return std::nullopt;
  u16 type = big16(&frame[12]);
  l.ip = kMac;
  if (type == 0x8100 && frame.size() >= kMac + kTag) {
    type = big16(&frame[16]);
    l.ip += kTag;
  }
  const std::size_t rest = frame.size() - l.ip;
  const std::byte* ip = frame.data() + l.ip;
  if (type == 0x0800 && rest >= 20 && std::to_integer<u8>(ip[0]) >> 4 == 4) {
    const std::size_t header = std::size_t{std::to_integer<u8>(ip[0]) & 15u} * 4, total = big16(ip + 2);
    if (header < 20 || total < header || total > rest) return std::nullopt;
    l.transport = l.ip + header;
    l.end = l.ip + total;
    l.protocol = std::to_integer<u8>(ip[9]);
    l.fragment = big16(ip + 6) & 0x3fff;  // more of them, or not the first
  } else if (type == 0x86dd && rest >= kIp6 && std::to_integer<u8>(ip[0]) >> 4 == 6) {
    l.v6 = true;
    l.transport = l.ip + kIp6;
    l.end = l.transport + big16(ip + 4);
    l.protocol = std::to_integer<u8>(ip[6]);  // extension headers are other protocols
    if (l.end > frame.size()) return std::nullopt;
  } else {
    return std::nullopt;
  }
  return l;
}

// Of the pseudo header: addresses, protocol, length.
u32 pseudo_sum(std::span<const std::byte> frame, const Layout& l, std::size_t length) {
  const auto addresses = l.v6 ? frame.subspan(l.ip + 8, 32) : frame.subspan(l.ip + 12, 8);
  return u32{ones_sum(addresses)} + l.protocol + static_cast<u32>(length & 0xffff) + static_cast<u32>(length >> 16);
}

}  // namespace

// Eight bytes at a time as they lie in memory; what a carry leaves is added at the end, and the order is put right there.
u16 ones_sum(std::span<const std::byte> bytes, u32 start) {
  u64 low = 0, high = 0;
  for (; bytes.size() >= 8; bytes = bytes.subspan(8)) {
    u64 word;
    std::memcpy(&word, bytes.data(), sizeof word);
    low += word & 0xffffffff;
    high += word >> 32;
  }
  std::array<std::byte, 8> rest{};
  std::copy(bytes.begin(), bytes.end(), rest.begin());
  u64 word;
  std::memcpy(&word, rest.data(), sizeof word);
  low += (word & 0xffffffff) + (word >> 32);
  const u16 native = fold((low >> 32) + (low & 0xffffffff) + (high >> 32) + (high & 0xffffffff));
  const u16 sum = static_cast<u16>(native << 8 | native >> 8);
  return fold(u64{sum} + start);
}

// The field holds the pseudo header's sum; RFC 768: a UDP sum of zero would mean that there is none.
bool finish_checksum(const NetHeader& header, std::span<std::byte> frame) {
  const std::size_t start = header.checksum_start, at = start + header.checksum_offset;
  if (at + 2 > frame.size()) return false;
  const u16 sum = static_cast<u16>(~ones_sum(frame.subspan(start)));
  put16(&frame[at], sum == 0 ? 0xffff : sum);
  return true;
}

bool segment(const NetHeader& header, std::span<std::byte> frame,
             const std::function<void(std::span<const iovec>)>& send) {
  const u8 kind = header.segmentation & static_cast<u8>(~net_segmentation::ecn);
  const std::size_t most = header.segment_bytes;
  if ((kind != net_segmentation::tcp4 && kind != net_segmentation::tcp6) || most < kLeastSegment) return false;
  auto l = look(frame);
  if (!l || l->v6 != (kind == net_segmentation::tcp6) || l->protocol != kTcp || l->fragment) return false;
  if (l->transport != header.checksum_start || frame.size() < l->transport + kLeastTcp) return false;
  const std::size_t tcp = std::size_t{std::to_integer<u8>(frame[l->transport + 12])} >> 4 << 2;
  const std::size_t headers = l->transport + tcp;
  if (tcp < kLeastTcp || frame.size() <= headers) return false;

  std::array<std::byte, kMac + kTag + 60 + 60> head;  // the longest of each
  const auto payload = frame.subspan(headers);
  const u32 sequence = big32(&frame[l->transport + 4]);
  const u16 number = l->v6 ? u16{0} : big16(&frame[l->ip + 4]);
  constexpr u8 kFin = 1, kPush = 8, kReduced = 0x80;
  for (std::size_t done = 0, i = 0; done < payload.size(); done += most, i++) {
    const auto part = payload.subspan(done, std::min(most, payload.size() - done));
    std::copy_n(frame.begin(), headers, head.begin());
    std::byte *ip = &head[l->ip], *transport = &head[l->transport];
    if (l->v6) {
      put16(ip + 4, static_cast<u32>(tcp + part.size()));
    } else {
      put16(ip + 2, static_cast<u32>(headers - l->ip + part.size()));
      put16(ip + 4, static_cast<u32>(number + i));
      put16(ip + 10, 0);
      put16(ip + 10, static_cast<u16>(~ones_sum({ip, l->transport - l->ip})));
    }
    put32(transport + 4, sequence + static_cast<u32>(done));
    const bool last = done + part.size() == payload.size();
    if (!last) transport[13] &= static_cast<std::byte>(static_cast<u8>(~(kFin | kPush)));
    if (i != 0) transport[13] &= static_cast<std::byte>(static_cast<u8>(~kReduced));
    put16(transport + 16, 0);
    u32 sum = pseudo_sum(head, *l, tcp + part.size());
    sum += ones_sum({transport, tcp});  // of an even length: the payload follows as if in one piece
    put16(transport + 16, static_cast<u16>(~ones_sum(part, sum)));
    const iovec pieces[] = {{head.data(), headers}, {part.data(), part.size()}};
    send(pieces);
  }
  return true;
}

namespace {

// A segment with data of a stream that others may follow; where its data begins. 0: it is none.
std::size_t payload_of_stream(std::span<const std::byte> frame, const Layout& l) {
  constexpr u8 kAcknowledge = 0x10, kPush = 8;
  if (l.protocol != kTcp || l.fragment || l.end < l.transport + kLeastTcp) return 0;
  const std::size_t payload = l.transport + (std::size_t{std::to_integer<u8>(frame[l.transport + 12])} >> 4 << 2);
  const u8 flags = std::to_integer<u8>(frame[l.transport + 13]);
  if (payload < l.transport + kLeastTcp || payload >= l.end || (flags & ~kPush) != kAcknowledge) return 0;
  if (!l.v6 && ones_sum(frame.subspan(l.ip, l.transport - l.ip)) != 0xffff) return 0;
  return checksum_is_right(frame) ? payload : 0;
}

// Of the first frame's headers and another's: equal but for lengths, numbers, sums and PSH.
bool same_headers(std::span<const std::byte> a, std::span<const std::byte> b, const Layout& l, std::size_t payload) {
  const auto same = [&](std::size_t from, std::size_t to) {
    return std::equal(a.begin() + static_cast<std::ptrdiff_t>(from), a.begin() + static_cast<std::ptrdiff_t>(to),
                      b.begin() + static_cast<std::ptrdiff_t>(from));
  };
  const std::size_t t = l.transport;
  const bool ip = l.v6 ? same(0, l.ip + 4) && same(l.ip + 6, t)
                       : same(0, l.ip + 2) && same(l.ip + 6, l.ip + 10) && same(l.ip + 12, t);
  return ip && same(t, t + 4) && same(t + 8, t + 13) && same(t + 14, t + 16) && same(t + 18, payload);
}

}  // namespace

std::size_t coalesce(std::span<const std::span<const std::byte>> frames, NetHeader& header,
                     std::vector<std::byte>& whole) {
  constexpr std::size_t kMostIp = 65535;
  constexpr std::byte kPush{8};
  if (frames.size() < 2) return frames.size();
  const auto first = frames[0];
  const auto l = look(first);
  const std::size_t payload = l ? payload_of_stream(first, *l) : 0;
  if (payload == 0) return 1;
  const std::size_t most = l->end - payload;
  std::size_t count = 1, length = most, last = most;
  bool pushed = (first[l->transport + 13] & kPush) != std::byte{0};
  while (count < frames.size() && last == most && !pushed) {
    const auto next = frames[count];
    const auto n = look(next);
    if (!n || n->transport != l->transport || n->v6 != l->v6 || payload_of_stream(next, *n) != payload) break;
    const std::size_t more = n->end - payload;
    if (more > most || payload - l->ip + length + more > kMostIp || !same_headers(first, next, *l, payload)) break;
    if (big32(&next[l->transport + 4]) != static_cast<u32>(big32(&first[l->transport + 4]) + length)) break;
    if (count == 1) whole.assign(first.begin(), first.begin() + static_cast<std::ptrdiff_t>(l->end));
    whole.insert(whole.end(), next.begin() + static_cast<std::ptrdiff_t>(payload),
                 next.begin() + static_cast<std::ptrdiff_t>(n->end));
    pushed = (next[l->transport + 13] & kPush) != std::byte{0};
    length += more;
    last = more;
    count++;
  }
  if (count == 1) return 1;
  std::byte *ip = &whole[l->ip], *transport = &whole[l->transport];
  const std::size_t tcp = payload - l->transport + length;
  if (pushed) transport[13] |= kPush;
  if (l->v6) {
    put16(ip + 4, static_cast<u32>(tcp));
  } else {
    put16(ip + 2, static_cast<u32>(whole.size() - l->ip));
    put16(ip + 10, 0);
    put16(ip + 10, static_cast<u16>(~ones_sum({ip, l->transport - l->ip})));
  }
  put16(transport + 16, ones_sum({}, pseudo_sum(whole, *l, tcp)));
  header = {};
  header.flags = net_flag::needs_checksum;
  header.segmentation = l->v6 ? net_segmentation::tcp6 : net_segmentation::tcp4;
  header.header_bytes = static_cast<u16>(payload);
  header.segment_bytes = static_cast<u16>(most);
  header.checksum_start = static_cast<u16>(l->transport);
  header.checksum_offset = 16;
  return count;
}

bool checksum_is_right(std::span<const std::byte> frame) {
  const auto l = look(frame);
  if (!l || l->fragment || (l->protocol != kTcp && l->protocol != kUdp)) return false;
  const std::size_t length = l->end - l->transport, field = l->protocol == kTcp ? 16 : 6;
  if (length < (l->protocol == kTcp ? kLeastTcp : 8)) return false;
  if (l->protocol == kUdp && big16(&frame[l->transport + field]) == 0) return false;  // none
  return ones_sum(frame.subspan(l->transport, length), pseudo_sum(frame, *l, length)) == 0xffff;
}

}  // namespace trapline::devices::virtio
