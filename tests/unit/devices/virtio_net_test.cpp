// Frames to and from the guest, in buffers of every shape.
#include "devices/virtio/net.h"

#include <gtest/gtest.h>

#include "support/virtio_driver.h"

namespace trapline::devices::virtio {
namespace {

constexpr u64 kData = 0x100000, kHeader = 12;
constexpr u64 kMergeable = 1 << 15;

struct Wire final : FrameSink {
  std::vector<std::vector<u8>> frames;
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

}  // namespace
}  // namespace trapline::devices::virtio
