// The socket device: packets with and without form, and buffers of any size for what goes to the guest.
#include "devices/virtio/vsock.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/virtio_driver.h"

namespace trapline::devices::virtio {
namespace {

using namespace trapline::test;

struct FakePeer final : VsockPeer {
  std::vector<VsockPacket> packets;
  unsigned rooms = 0, starts = 0;
  void received(VsockPacket&& packet) override { packets.push_back(std::move(packet)); }
  void may_send() override { rooms++; }
  void started() override { starts++; }
};

struct VsockDevice : testing::Test {
  static constexpr u64 kAt = 0x50000, kTo = 0x60000;
  FakeDma dma;
  FakeHost host;
  FakeTransport transport;
  FakePeer peer;
  Vsock* vsock = new Vsock{7, peer};
  Device device{std::unique_ptr<Backend>{vsock}, dma, host};
  SplitDriver driver{dma, 16};

  void plug(unsigned queue) {
    device.attach(transport);
    bring_up(device, feature::version_1, driver.place(), queue);
  }
  void send(VsockHeader header, u32 bytes) {
    dma.put(kAt, header);
    driver.add({{kAt, 44}, {kAt + 44, bytes}});
    device.notify(1);
    EXPECT_TRUE(driver.used());
  }
  VsockPacket packet(std::size_t bytes) {
    VsockPacket p;
    p.header.op = VsockHeader::data;
    for (std::size_t i = 0; i < bytes; i++) p.data.push_back(static_cast<u8>(i));
    return p;
  }
};

TEST_F(VsockDevice, PacketsOfTheGuestsReachThePeer) {
  plug(1);
  EXPECT_EQ(peer.starts, 1u);
  VsockHeader h{.from_cid = 7, .to_cid = 2, .from_port = 1000, .to_port = 52, .length = 5, .op = VsockHeader::data};
  std::memcpy(dma.ram.host(Gpa{kAt + 44}), "hello", 5);
  send(h, 5);
  ASSERT_EQ(peer.packets.size(), 1u);
  EXPECT_EQ(peer.packets[0].header.from_port, 1000u);
  EXPECT_EQ(std::string(peer.packets[0].data.begin(), peer.packets[0].data.end()), "hello");
}

TEST_F(VsockDevice, WhatHasNoFormIsLost) {
  plug(1);
  VsockHeader h{.from_cid = 7, .to_cid = 2, .length = 6, .op = VsockHeader::data};
  send(h, 5);  // longer than it is
  h.length = ~u32{0};
  send(h, 5);
  h.length = 5, h.from_cid = 8;  // somebody else's name
  send(h, 5);
  driver.add({{kAt, 43}});
  device.notify(1);
  EXPECT_TRUE(peer.packets.empty());
}

TEST_F(VsockDevice, DataGoesInAsManyBuffersAsItNeeds) {
  plug(0);
  VsockPacket p = packet(100);
  EXPECT_EQ(vsock->send(p), Vsock::Sent::nothing);
  driver.add({{kTo, 44 + 60, true}});
  driver.add({{kTo + 0x1000, 10, true}});  // of no use
  driver.add({{kTo + 0x2000, 44 + 60, true}});
  EXPECT_EQ(vsock->send(p), Vsock::Sent::part);
  EXPECT_EQ(vsock->send(p), Vsock::Sent::part);
  EXPECT_EQ(vsock->send(p), Vsock::Sent::all);
  EXPECT_EQ(driver.used()->length, 44u + 60);
  EXPECT_EQ(driver.used()->length, 0u);
  EXPECT_EQ(driver.used()->length, 44u + 40);
  EXPECT_EQ(dma.get<VsockHeader>(kTo).length, 60u);
  EXPECT_EQ(dma.get<VsockHeader>(kTo + 0x2000).length, 40u);
  EXPECT_EQ(dma.get<u8>(kTo + 0x2000 + 44), 60);
}

}  // namespace
}  // namespace trapline::devices::virtio
