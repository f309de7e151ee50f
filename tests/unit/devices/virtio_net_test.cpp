// Frames to and from the guest, in buffers of every shape.
#include "devices/virtio/net.h"

#include <gtest/gtest.h>

#include "devices/virtio/net_offload.h"
#include "support/virtio_driver.h"

namespace trapline::devices::virtio {
namespace {

constexpr u64 kData = 0x100000, kHeader = 12;
constexpr u64 kMergeable = 1 << 15;

struct Wire final : FrameSink {
  std::vector<std::vector<u8>> frames;
  bool headers = false, large = false;
  bool takes_large() const override { return large; }
  bool has_headers() const override { return headers; }
  void send(std::span<const iovec> frame) override {
    std::vector<u8> bytes;
    for (const iovec& v : frame) {
      const auto* p = static_cast<const u8*>(v.iov_base);
      bytes.insert(bytes.end(), p, p + v.iov_len);
    }
    frames.push_back(bytes);
  }
};

// Both queues at places of their own.
struct NetTest : testing::Test {
  test::FakeDma dma;
  test::FakeHost host;
  test::FakeTransport transport;
  Wire wire;
  unsigned came = 0;
  Net* net = nullptr;
  std::unique_ptr<Device> device;
  test::SplitDriver driver{dma, 16};  // of the queue under test

  void plug(unsigned queue, u64 features = feature::version_1 | kMergeable) {
    auto backend = std::make_unique<Net>(Net::Settings{{1, 2, 3, 4, 5, 6}, 1400}, wire, [this] { came++; });
    net = backend.get();
    device = std::make_unique<Device>(std::move(backend), dma, host);
    device->attach(transport);
    // bring_up() sets up queue 0; the other one is moved to its place by hand.
    using namespace status;
    device->write_status(acknowledge | driver_bit());
    for (const u32 half : {0u, 1u}) {
      device->driver_select() = half;
      device->write_driver_features(static_cast<u32>(features >> 32 * half));
    }
    device->write_status(acknowledge | driver_bit() | features_ok);
    device->queue_select() = static_cast<u16>(queue);
    device->write_size(16);
    device->write_place(&RingPlace::descriptors, 0, test::DriverRing::kTable);
    device->write_place(&RingPlace::driver, 0, test::DriverRing::kDriver);
    device->write_place(&RingPlace::device, 0, test::DriverRing::kDevice);
    device->enable();
    device->write_status(acknowledge | driver_bit() | features_ok | driver_ok);
  }
  static u8 driver_bit() { return status::driver; }
  std::vector<std::byte> frame(std::size_t bytes, u8 first = 1) {
    std::vector<std::byte> f(bytes);
    for (std::size_t i = 0; i < bytes; i++) f[i] = static_cast<std::byte>(first + i);
    return f;
  }
};

TEST_F(NetTest, WhatTheGuestSendsGoesOutWithoutItsHeader) {
  plug(1);
  for (u64 i = 0; i < 64; i++) dma.put<u8>(kData + i, static_cast<u8>(i));
  driver.add({{kData, 12}, {kData + 12, 20}});
  driver.add({{kData, 10}, {kData + 10, 4}, {kData + 14, 2}});  // the header ends in the middle of a buffer
  device->notify(1);
  ASSERT_EQ(wire.frames.size(), 2u);
  EXPECT_EQ(wire.frames[0].size(), 20u);
  EXPECT_EQ(wire.frames[0][0], 12);
  EXPECT_EQ(wire.frames[1], (std::vector<u8>{12, 13, 14, 15}));
  EXPECT_TRUE(driver.used() && driver.used());
}

TEST_F(NetTest, WhatIsNoFrameGoesBackUnsent) {
  plug(1);
  driver.add({{kData, 12}});
  driver.add({{kData, 5}});
  driver.add({{kData, 12}, {kData, 65551}});
  driver.add({{kData, 64, true}});
  device->notify(1);
  EXPECT_TRUE(wire.frames.empty());
  for (unsigned i = 0; i < 4; i++) EXPECT_TRUE(driver.used());
  EXPECT_FALSE(device->status() & status::needs_reset);
}

TEST_F(NetTest, AFrameComesBehindAHeader) {
  plug(0);
  driver.add({{kData, 6, true}, {kData + 0x1000, 1000, true}});
  EXPECT_TRUE(net->deliver(frame(100)));
  EXPECT_EQ(driver.used()->length, 112u);
  EXPECT_EQ(dma.get<u16>(kData + 0x1000 + 4), 1u);  // buffers
  EXPECT_EQ(dma.get<u8>(kData + 0x1000 + 6), 1u);
  EXPECT_EQ(dma.get<u8>(kData + 0x1000 + 105), 100u);
  EXPECT_EQ(host.interrupts, 1u);
}

TEST_F(NetTest, ALongFrameTakesSeveralBuffers) {
  plug(0);
  for (u64 i = 0; i < 4; i++) driver.add({{kData + 0x1000 * i, 64, true}});
  EXPECT_TRUE(net->deliver(frame(64 * 3 - kHeader)));
  EXPECT_EQ(dma.get<u16>(kData + 10), 3u);
  for (unsigned i = 0; i < 3; i++) EXPECT_EQ(driver.used()->length, 64u);
  EXPECT_FALSE(driver.used());
  EXPECT_EQ(dma.get<u8>(kData + 0x1000), 53u);
}

TEST_F(NetTest, AFrameWaitsForBuffersAndIsNotLost) {
  plug(0);
  driver.add({{kData, 64, true}});
  EXPECT_FALSE(net->deliver(frame(100)));
  EXPECT_FALSE(driver.used());
  driver.add({{kData + 0x1000, 64, true}});
  device->notify(0);
  EXPECT_EQ(came, 2u);  // once when the driver was ready
  EXPECT_TRUE(net->deliver(frame(100)));
  EXPECT_EQ(dma.get<u16>(kData + 10), 2u);
  EXPECT_EQ(driver.used()->length, 64u);
  EXPECT_EQ(driver.used()->length, 48u);
}

TEST_F(NetTest, WithoutMergingOneBufferMustDo) {
  plug(0, feature::version_1);
  driver.add({{kData, 64, true}});
  driver.add({{kData + 0x1000, 64, true}});
  EXPECT_TRUE(net->deliver(frame(53)));  // lost
  EXPECT_FALSE(driver.used());
  EXPECT_TRUE(net->deliver(frame(52)));
  EXPECT_EQ(driver.used()->length, 64u);
  EXPECT_EQ(dma.get<u16>(kData + 10), 1u);
}

TEST_F(NetTest, BuffersWithoutRoomForAHeaderComeBack) {
  plug(0);
  driver.add({{kData, 11, true}});
  driver.add({{kData, 64}});
  driver.add({{kData, 64, true}});
  EXPECT_TRUE(net->deliver(frame(10)));
  EXPECT_EQ(driver.used()->length, 0u);
  EXPECT_EQ(driver.used()->length, 0u);
  EXPECT_EQ(driver.used()->length, 22u);
}

TEST_F(NetTest, AResetTakesTheBuffersThatItHolds) {
  plug(0);
  driver.add({{kData, 64, true}});
  EXPECT_FALSE(net->deliver(frame(100)));
  EXPECT_EQ(device->in_flight(), 1u);
  device->write_status(0);
  EXPECT_EQ(device->status(), 0u);
  EXPECT_TRUE(net->deliver(frame(100)));  // to nobody
  EXPECT_FALSE(driver.used());
}

TEST_F(NetTest, TellsItsAddressMtuAndLink) {
  plug(0);
  u8 config[12];
  device->read_config(0, config);
  EXPECT_EQ(config[0], 1);
  EXPECT_EQ(config[5], 6);
  EXPECT_EQ(config[6], 1);
  EXPECT_EQ(config[10] | config[11] << 8, 1400);
  net->set_link(false);
  net->set_link(false);
  EXPECT_EQ(host.config_interrupts, 1u);
  device->read_config(0, config);
  EXPECT_EQ(config[6], 0);
  EXPECT_EQ(device->config_generation(), 1);
}

// -- Offloads. The frames are IPv4 and TCP of `data` bytes, the checksum field as drivers leave it.

constexpr u64 kChecksums = feature::version_1 | kMergeable | 1 << 0 | 1 << 1;  // CSUM, GUEST_CSUM
constexpr u64 kSegments = kChecksums | 1 << 11;                                // HOST_TSO4

std::vector<std::byte> tcp_frame(std::size_t data) {
  std::vector<std::byte> f(54 + data, std::byte{7});
  const auto put = [&f](std::size_t at, std::initializer_list<unsigned> bytes) {
    for (const unsigned b : bytes) f[at++] = static_cast<std::byte>(b);
  };
  const unsigned total = static_cast<unsigned>(40 + data);
  put(12, {8, 0, 0x45, 0, total >> 8, total, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 2, 15, 10, 0, 2, 2});
  put(46, {0x50, 0x18});
  const u16 sum = ones_sum(std::span{f}.subspan(26, 8), 6 + static_cast<u32>(20 + data));
  put(50, {unsigned{sum} >> 8, sum});
  return f;
}
NetHeader tcp_header(u16 segment_bytes = 0) {
  NetHeader h;
  h.flags = net_flag::needs_checksum;
  h.checksum_start = 34, h.checksum_offset = 16;
  h.segment_bytes = segment_bytes;
  h.segmentation = segment_bytes ? net_segmentation::tcp4 : net_segmentation::none;
  return h;
}

struct NetOffloadTest : NetTest {
  void transmit(const NetHeader& header, const std::vector<std::byte>& frame) {
    dma.put(kData, header);
    std::memcpy(dma.ram.host(Gpa{kData + 12}), frame.data(), frame.size());
    driver.add({{kData, static_cast<u32>(12 + frame.size())}});
    device->notify(1);
  }
  static bool right(const std::vector<u8>& frame) { return checksum_is_right(std::as_bytes(std::span{frame})); }
};

TEST_F(NetOffloadTest, ChecksumsAreFinishedForTheWire) {
  plug(1, kChecksums);
  transmit(tcp_header(), tcp_frame(1001));
  ASSERT_EQ(wire.frames.size(), 1u);
  EXPECT_TRUE(right(wire.frames[0]));
  NetHeader beyond = tcp_header();
  beyond.checksum_offset = 0xffff;
  transmit(beyond, tcp_frame(100));
  EXPECT_EQ(wire.frames.size(), 1u) << "what cannot be is lost";
  EXPECT_TRUE(driver.used() && driver.used());
}

TEST_F(NetOffloadTest, LargeSegmentsAreCutForTheWire) {
  plug(1, kSegments);
  transmit(tcp_header(1446), tcp_frame(60'000));
  ASSERT_EQ(wire.frames.size(), 42u);
  for (const auto& frame : wire.frames) EXPECT_TRUE(right(frame));
}

TEST_F(NetOffloadTest, WhatWasNotAgreedIsNotDone) {
  plug(1);
  transmit(tcp_header(1446), tcp_frame(3000));
  ASSERT_EQ(wire.frames.size(), 1u);
  EXPECT_EQ(wire.frames[0].size(), 3054u);
  EXPECT_FALSE(right(wire.frames[0]));
}

TEST_F(NetOffloadTest, FeaturesThatNeedOthersAreRefusedAlone) {
  plug(1);
  for (const u64 wrong : {u64{1} << 11, u64{1} << 12, u64{1} << 0 | 1 << 13}) EXPECT_FALSE(net->accepts(wrong));
  EXPECT_TRUE(net->accepts(kSegments | 1 << 13));
}

TEST_F(NetOffloadTest, DriversNeedNotSumUpWhatIsRight) {
  plug(0, kChecksums);
  auto frame = tcp_frame(500);
  EXPECT_TRUE(finish_checksum(tcp_header(), frame));
  driver.add({{kData, 1000, true}});
  driver.add({{kData + 0x1000, 1000, true}});
  EXPECT_TRUE(net->deliver(frame));
  EXPECT_EQ(dma.get<u8>(kData), net_flag::data_valid);
  frame[60] ^= std::byte{1};
  EXPECT_TRUE(net->deliver(frame));
  EXPECT_EQ(dma.get<u8>(kData + 0x1000), 0) << "and find out by themselves what is not";
}

TEST_F(NetOffloadTest, WithoutAWireSegmentsStayLarge) {
  wire.large = true;
  plug(1, kSegments);
  transmit(tcp_header(1446), tcp_frame(60'000));
  ASSERT_EQ(wire.frames.size(), 1u);
  EXPECT_EQ(wire.frames[0].size(), 60'054u);
  EXPECT_TRUE(right(wire.frames[0]));
}

// Parts of a stream come as one where the driver takes that, and there is room.
TEST_F(NetOffloadTest, PartsOfAStreamComeTogether) {
  const auto segments = [] {
    std::vector<std::vector<std::byte>> all;
    auto frame = tcp_frame(3000);
    frame[47] = std::byte{0x10};
    segment(tcp_header(1000), frame, [&](std::span<const iovec> pieces) {
      std::vector<std::byte> one(pieces[0].iov_len + pieces[1].iov_len);
      std::memcpy(one.data(), pieces[0].iov_base, pieces[0].iov_len);
      std::memcpy(&one[pieces[0].iov_len], pieces[1].iov_base, pieces[1].iov_len);
      all.push_back(one);
    });
    return all;
  }();
  ASSERT_EQ(segments.size(), 3u);
  const std::vector<Net::Frame> frames{segments.begin(), segments.end()};
  plug(0, kSegments | 1 << 7);
  driver.add({{kData, 9000, true}});
  EXPECT_EQ(net->deliver(frames), 3u);
  EXPECT_EQ(driver.used()->length, 12u + 3054);
  EXPECT_EQ(dma.get<u8>(kData + 1), net_segmentation::tcp4);
  driver.add({{kData, 1100, true}});
  driver.add({{kData + 0x1000, 1100, true}});
  EXPECT_EQ(net->deliver(frames), 2u) << "no room for all: as many as there is room for";
  for (const u64 at : {kData, kData + 0x1000}) {
    EXPECT_EQ(driver.used()->length, 12u + 1054);
    EXPECT_EQ(dma.get<u16>(at + 10), 1u) << "each in a buffer of its own";
  }
  plug(0, kChecksums);
  for (u64 i = 0; i < 3; i++) driver.add({{kData + 0x1000 * i, 2000, true}});
  EXPECT_EQ(net->deliver(frames), 3u);
  EXPECT_EQ(dma.get<u8>(kData + 1), 0) << "not agreed";
}

// A TAP interface: what is asked for is done there.
struct TapTest : NetOffloadTest {
  TapTest() { wire.headers = true; }
  std::vector<std::byte> with(const NetHeader& header, const std::vector<std::byte>& frame) {
    std::vector<std::byte> all(sizeof header + frame.size());
    std::memcpy(all.data(), &header, sizeof header);
    std::memcpy(&all[sizeof header], frame.data(), frame.size());
    return all;
  }
};

TEST_F(TapTest, HeadersGoAlong) {
  plug(1, kSegments);
  transmit(tcp_header(1446), tcp_frame(5000));
  ASSERT_EQ(wire.frames.size(), 1u);
  EXPECT_EQ(wire.frames[0].size(), 12u + 5054);
  EXPECT_EQ(wire.frames[0][0], net_flag::needs_checksum);
  EXPECT_EQ(wire.frames[0][1], net_segmentation::tcp4);
}

TEST_F(TapTest, LargeSegmentsComeWhole) {
  plug(0, kSegments | 1 << 7);
  driver.add({{kData, 9000, true}});
  EXPECT_TRUE(net->deliver(with(tcp_header(1446), tcp_frame(5000))));
  EXPECT_EQ(driver.used()->length, 12u + 5054);
  EXPECT_EQ(dma.get<u8>(kData + 1), net_segmentation::tcp4);
  EXPECT_EQ(dma.get<u16>(kData + 10), 1u);
}

TEST_F(TapTest, DriversThatWantNothingGetFinishedFrames) {
  plug(0);
  for (u64 i = 0; i < 8; i++) driver.add({{kData + 0x1000 * i, 2000, true}});
  EXPECT_TRUE(net->deliver(with(tcp_header(1446), tcp_frame(4000))));
  EXPECT_TRUE(net->deliver(with(tcp_header(), tcp_frame(100))));
  NetHeader valid;
  valid.flags = net_flag::data_valid;
  EXPECT_TRUE(net->deliver(with(valid, frame(100))));
  std::vector<u32> lengths;
  for (u64 i = 0; const auto used = driver.used(); i++) {
    lengths.push_back(used->length - 12);
    const auto* at = dma.ram.host(Gpa{kData + 0x1000 * i});
    EXPECT_EQ(dma.get<u16>(kData + 0x1000 * i), 0) << "no flag and no segmentation";
    EXPECT_EQ(checksum_is_right({at + 12, used->length - 12}), i < 4);
  }
  EXPECT_EQ(lengths, (std::vector<u32>{54 + 1446, 54 + 1446, 54 + 1108, 154, 100}));
}

}  // namespace
}  // namespace trapline::devices::virtio
