// Checksums and segments that drivers leave to the device, against sums made the long way.
#include "devices/virtio/net_offload.h"

#include <gtest/gtest.h>

#include <random>

namespace trapline::devices::virtio {
namespace {

using Bytes = std::vector<std::byte>;

std::span<const std::byte> part(const Bytes& f, std::size_t at, std::size_t n) { return std::span{f}.subspan(at, n); }
unsigned at(const Bytes& f, std::size_t i) { return std::to_integer<unsigned>(f[i]); }
unsigned word(const Bytes& f, std::size_t i) { return at(f, i) << 8 | at(f, i + 1); }
void put(Bytes& f, std::size_t i, unsigned value) {
  f[i] = static_cast<std::byte>(value >> 8), f[i + 1] = static_cast<std::byte>(value);
}

// RFC 1071, a pair of bytes at a time.
unsigned slow_sum(std::span<const std::byte> bytes, unsigned sum = 0) {
  for (std::size_t i = 0; i < bytes.size(); i++) sum += std::to_integer<unsigned>(bytes[i]) << (i % 2 ? 0 : 8);
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  return sum;
}

Bytes random_bytes(std::size_t n, std::mt19937_64& random) {
  Bytes bytes(n);
  for (std::byte& b : bytes) b = static_cast<std::byte>(random());
  return bytes;
}

TEST(OnesSum, IsThatOfPairs) {
  std::mt19937_64 random{1};
  for (unsigned round = 0; round < 3000; round++) {
    const Bytes bytes = random_bytes(random() % 300, random);
    const std::size_t from = bytes.empty() ? 0 : random() % bytes.size();
    const auto some = std::span{bytes}.subspan(from);
    const unsigned start = static_cast<unsigned>(random() % 0x20000);
    EXPECT_EQ(ones_sum(some, start), slow_sum(some, start)) << round;
  }
  const Bytes ones(65535, std::byte{0xff});
  EXPECT_EQ(ones_sum(ones), slow_sum(ones));
}

// A frame of TCP with random addresses and contents, with the sum of the pseudo header where drivers put it.
struct Frame {
  Bytes bytes;
  std::size_t ip = 14, transport = 0, payload = 0;
  bool v6;
  Frame(bool six, std::size_t data, std::mt19937_64& random, std::size_t tag = 0, std::size_t options = 0) : v6{six} {
    ip = 14 + tag;
    transport = ip + (six ? 40 : 20);
    payload = transport + 20 + options;
    bytes = random_bytes(payload + data, random);
    if (tag) put(bytes, 12, 0x8100);
    put(bytes, 12 + tag, six ? 0x86dd : 0x0800);
    const unsigned tcp = static_cast<unsigned>(20 + options + data);
    if (six) {
      bytes[ip] = std::byte{0x60};
      put(bytes, ip + 4, tcp);
      bytes[ip + 6] = std::byte{6};
    } else {
      bytes[ip] = std::byte{0x45};
      put(bytes, ip + 2, 20 + tcp);
      put(bytes, ip + 6, 0x4000);
      bytes[ip + 9] = std::byte{6};
      put(bytes, ip + 10, 0);
      put(bytes, ip + 10, ~slow_sum(part(bytes, ip, 20)) & 0xffff);
    }
    bytes[transport + 12] = static_cast<std::byte>((20 + options) / 4 << 4);
    put(bytes, transport + 16, slow_sum(addresses(), 6 + tcp));
  }
  std::span<const std::byte> addresses() const { return part(bytes, ip + (v6 ? 8 : 12), v6 ? 32 : 8); }
  NetHeader header(unsigned segment_bytes = 0) const {
    NetHeader h;
    h.flags = net_flag::needs_checksum;
    h.checksum_start = static_cast<u16>(transport);
    h.checksum_offset = 16;
    if (segment_bytes) h.segmentation = v6 ? net_segmentation::tcp6 : net_segmentation::tcp4;
    h.segment_bytes = static_cast<u16>(segment_bytes);
    return h;
  }
};

// Of a frame as Frame has it, by the long way.
bool right(const Frame& like, const Bytes& f) {
  const auto tcp = part(f, like.transport, f.size() - like.transport);
  const auto addresses = part(f, like.ip + (like.v6 ? 8 : 12), like.v6 ? 32 : 8);
  const bool header = like.v6 || slow_sum(part(f, like.ip, 20)) == 0xffff;
  return header && slow_sum(tcp, 6 + static_cast<unsigned>(tcp.size()) + slow_sum(addresses)) == 0xffff;
}

TEST(Checksum, IsFinishedAsTheHeaderAsks) {
  std::mt19937_64 random{2};
  for (unsigned round = 0; round < 500; round++) {
    Frame f{round % 2 == 1, random() % 2000, random, round % 3 == 0 ? 4u : 0u, round % 5 * 4};
    EXPECT_FALSE(checksum_is_right(f.bytes)) << round;
    ASSERT_TRUE(finish_checksum(f.header(), f.bytes));
    EXPECT_TRUE(right(f, f.bytes)) << round;
    EXPECT_TRUE(checksum_is_right(f.bytes)) << round;
    Bytes padded = f.bytes;
    padded.resize(padded.size() + 7, std::byte{0x55});
    EXPECT_TRUE(checksum_is_right(padded)) << "what pads a short frame is no part of it";
    f.bytes.back() ^= std::byte{1};
    EXPECT_FALSE(checksum_is_right(f.bytes)) << round;
  }
}

TEST(Checksum, WhatIsNotInTheFrameIsRefused) {
  std::mt19937_64 random{3};
  Frame f{false, 10, random};
  NetHeader h = f.header();
  h.checksum_offset = static_cast<u16>(f.bytes.size() - f.transport - 1);
  const Bytes before = f.bytes;
  EXPECT_FALSE(finish_checksum(h, f.bytes));
  h.checksum_start = 0xffff, h.checksum_offset = 0xffff;
  EXPECT_FALSE(finish_checksum(h, f.bytes));
  EXPECT_EQ(f.bytes, before);
}

TEST(Checksum, FragmentsAndOtherProtocolsAreNobodysToSay) {
  std::mt19937_64 random{4};
  Frame f{false, 100, random};
  ASSERT_TRUE(finish_checksum(f.header(), f.bytes));
  Bytes fragment = f.bytes;
  put(fragment, f.ip + 6, 0x2000);
  EXPECT_FALSE(checksum_is_right(fragment));
  Bytes other = f.bytes;
  other[f.ip + 9] = std::byte{47};
  EXPECT_FALSE(checksum_is_right(other));
  for (std::size_t n = 0; n < f.bytes.size(); n++) EXPECT_FALSE(checksum_is_right(part(f.bytes, 0, n))) << n;
}

TEST(Segments, CarryTheSameStream) {
  std::mt19937_64 random{5};
  for (unsigned round = 0; round < 300; round++) {
    Frame f{round % 2 == 1, 1 + random() % 40'000, random, round % 3 == 0 ? 4u : 0u, round % 5 * 4};
    f.bytes[f.transport + 13] = std::byte{0x99};  // FIN, PSH, ACK, CWR
    const unsigned most = static_cast<unsigned>(536 + random() % 1000);
    Bytes copy = f.bytes, stream;
    unsigned count = 0;
    u32 sequence = word(f.bytes, f.transport + 4) << 16 | word(f.bytes, f.transport + 6);
    ASSERT_TRUE(segment(f.header(most), copy, [&](std::span<const iovec> pieces) {
      Bytes one;
      for (const iovec& v : pieces) {
        const auto* from = static_cast<const std::byte*>(v.iov_base);
        one.insert(one.end(), from, from + v.iov_len);
      }
      EXPECT_TRUE(right(f, one)) << round;
      EXPECT_TRUE(checksum_is_right(one)) << round;
      EXPECT_EQ(word(one, f.transport + 4) << 16 | word(one, f.transport + 6), sequence);
      if (!f.v6) {
        EXPECT_EQ(word(one, f.ip + 4), (word(f.bytes, f.ip + 4) + count) & 0xffff);
      }
      const bool first = count++ == 0, last = stream.size() + one.size() - f.payload == f.bytes.size() - f.payload;
      EXPECT_EQ(at(one, f.transport + 13), 0x10u | (first ? 0x80u : 0u) | (last ? 9u : 0u));
      EXPECT_LE(one.size(), f.payload + most);
      stream.insert(stream.end(), one.begin() + static_cast<std::ptrdiff_t>(f.payload), one.end());
      sequence += static_cast<u32>(one.size() - f.payload);
    }));
    EXPECT_TRUE(std::equal(stream.begin(), stream.end(), f.bytes.begin() + static_cast<std::ptrdiff_t>(f.payload),
                           f.bytes.end()))
        << round;
  }
}

TEST(Segments, WhatDoesNotBelongTogetherIsRefused) {
  std::mt19937_64 random{6};
  const Frame f{false, 5000, random};
  const auto refused = [&](const NetHeader& header, auto change) {
    Bytes bytes = f.bytes;
    change(bytes);
    unsigned sent = 0;
    const bool taken = segment(header, bytes, [&](auto) { sent++; });
    return !taken && sent == 0;
  };
  const auto nothing = [](Bytes&) {};
  NetHeader h = f.header(1000);
  EXPECT_FALSE(refused(h, nothing));
  EXPECT_TRUE(refused(f.header(47), nothing)) << "a frame for each few bytes";
  h.checksum_start++;
  EXPECT_TRUE(refused(h, nothing));
  h = f.header(1000);
  h.segmentation = net_segmentation::tcp6;
  EXPECT_TRUE(refused(h, nothing));
  h.segmentation = 3;  // UDP
  EXPECT_TRUE(refused(h, nothing));
  h = f.header(1000);
  EXPECT_TRUE(refused(h, [&](Bytes& b) { b[f.ip + 9] = std::byte{17}; }));
  EXPECT_TRUE(refused(h, [&](Bytes& b) { put(b, f.ip + 6, 0x2000); })) << "a fragment";
  EXPECT_TRUE(refused(h, [&](Bytes& b) { b[f.transport + 12] = std::byte{0x40}; }));
  EXPECT_TRUE(refused(h, [&](Bytes& b) { b.resize(f.payload); }));
}

// What segment() cuts comes together again, and only that.
struct Cut {
  std::vector<Bytes> frames;
  std::vector<std::span<const std::byte>> views;
  Frame from;
  Cut(bool six, std::size_t data, unsigned most, std::mt19937_64& random) : from{six, data, random, 0, 12} {
    from.bytes[from.transport + 13] = std::byte{0x18};
    Bytes copy = from.bytes;
    EXPECT_TRUE(segment(from.header(most), copy, [this](std::span<const iovec> pieces) {
      Bytes one;
      for (const iovec& v : pieces) {
        const auto* at = static_cast<const std::byte*>(v.iov_base);
        one.insert(one.end(), at, at + v.iov_len);
      }
      frames.push_back(one);
    }));
  }
  std::size_t together(NetHeader& header, Bytes& whole) {
    views.assign(frames.begin(), frames.end());
    return coalesce(views, header, whole);
  }
};

TEST(Coalesce, UndoesSegments) {
  std::mt19937_64 random{8};
  for (unsigned round = 0; round < 200; round++) {
    const unsigned most = 500 + static_cast<unsigned>(random() % 1000);
    Cut cut{round % 2 == 1, most + 1 + random() % 40'000, most, random};
    if (round % 3 == 0) cut.frames.back().resize(cut.frames.back().size() + 5);  // padding is no part of it
    NetHeader header;
    Bytes whole;
    ASSERT_EQ(cut.together(header, whole), cut.frames.size());
    EXPECT_EQ(header.segment_bytes, most);
    EXPECT_EQ(header.segmentation, cut.from.v6 ? net_segmentation::tcp6 : net_segmentation::tcp4);
    ASSERT_TRUE(finish_checksum(header, whole));
    EXPECT_TRUE(right(cut.from, whole));
    Bytes expected = cut.from.bytes;
    ASSERT_TRUE(finish_checksum(cut.from.header(), expected));
    EXPECT_EQ(whole, expected) << round;
  }
}

TEST(Coalesce, StopsAtWhatDoesNotFollow) {
  std::mt19937_64 random{9};
  NetHeader header;
  Bytes whole;
  const auto changed = [&](auto change, bool sums = true) {
    Cut cut{false, 5000, 1000, random};
    Bytes& third = cut.frames[2];
    change(third, cut.from);
    if (sums) {
      put(third, cut.from.ip + 10, 0);
      put(third, cut.from.ip + 10, ~slow_sum(part(third, cut.from.ip, 20)) & 0xffff);
      const unsigned tcp = static_cast<unsigned>(third.size() - cut.from.transport);
      put(third, cut.from.transport + 16, slow_sum(part(third, cut.from.ip + 12, 8), 6 + tcp));
      EXPECT_TRUE(finish_checksum(cut.from.header(), third));
    }
    return cut.together(header, whole);
  };
  EXPECT_EQ(changed([](Bytes&, Frame&) {}), 5u);
  EXPECT_EQ(changed([](Bytes& f, Frame&) { f.back() ^= std::byte{1}; }, false), 2u) << "a wrong sum";
  EXPECT_EQ(changed([](Bytes& f, Frame& l) { f[l.ip + 11] ^= std::byte{1}; }, false), 2u) << "the header's";
  EXPECT_EQ(changed([](Bytes& f, Frame& l) { f[l.transport + 7] ^= std::byte{1}; }), 2u) << "another place";
  EXPECT_EQ(changed([](Bytes& f, Frame& l) { f[l.transport + 1] ^= std::byte{1}; }), 2u) << "another port";
  EXPECT_EQ(changed([](Bytes& f, Frame& l) { f[l.transport + 9] ^= std::byte{1}; }), 2u) << "acknowledges more";
  EXPECT_EQ(changed([](Bytes& f, Frame& l) { f[l.transport + 25] ^= std::byte{1}; }), 2u) << "another option";
  EXPECT_EQ(changed([](Bytes& f, Frame& l) { f[l.transport + 13] = std::byte{0x11}; }), 2u) << "the end";
  EXPECT_EQ(changed([](Bytes& f, Frame& l) { f[l.transport + 13] = std::byte{0x18}; }), 3u) << "a push ends it";
  EXPECT_EQ(changed([](Bytes& f, Frame& l) { f[l.ip + 15] ^= std::byte{1}; }), 2u) << "somebody else";
  EXPECT_EQ(changed([](Bytes& f, Frame&) { f[0] ^= std::byte{2}; }), 2u) << "by another way";
}

TEST(Coalesce, AnythingIsHarmless) {
  std::mt19937_64 random{10};
  for (unsigned round = 0; round < 5'000; round++) {
    Cut cut{round % 2 == 1, 3000, 700, random};
    for (Bytes& f : cut.frames)
      if (random() % 2 == 0) {
        f[random() % std::min<std::size_t>(90, f.size())] = static_cast<std::byte>(random());
        f.resize(random() % 4 == 0 ? random() % f.size() : f.size());
      }
    NetHeader header;
    Bytes whole;
    const std::size_t count = cut.together(header, whole);
    EXPECT_GE(count, 1u);
    EXPECT_LE(count, cut.frames.size());
  }
}

// Any header over any frame: nothing outside is touched (a sanitizer would say so), and what is sent is bounded.
TEST(Segments, OfAnythingAreFew) {
  std::mt19937_64 random{7};
  for (unsigned round = 0; round < 20'000; round++) {
    Frame f{round % 2 == 1, random() % 3000, random};
    for (unsigned i = random() % 4; i > 0; i--)
      f.bytes[random() % std::min<std::size_t>(80, f.bytes.size())] = static_cast<std::byte>(random());
    NetHeader h = f.header(static_cast<unsigned>(random() % 2000));
    if (random() % 4 == 0) h.checksum_start = static_cast<u16>(random());
    unsigned frames = 0;
    segment(h, f.bytes, [&](auto) { frames++; });
    EXPECT_LE(frames, 3000 / 48 + 1);
    finish_checksum(h, f.bytes);
    (void)checksum_is_right(f.bytes);
  }
}

}  // namespace
}  // namespace trapline::devices::virtio
