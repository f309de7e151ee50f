#include "devices/virtio/ninep.h"

#include <gtest/gtest.h>

#include <cerrno>

#include "support/virtio_driver.h"

namespace trapline::devices::virtio {
namespace {

using namespace trapline::test;

// Answers with the request's bytes, turned round, or with what it is told.
struct FakeServer final : MessageServer {
  std::vector<u8> bytes = std::vector<u8>(1024), reply;
  bool there = true;
  std::vector<std::size_t> asked;
  std::span<u8> room() override { return bytes; }
  std::span<const u8> ask(std::size_t length) override {
    asked.push_back(length);
    if (!there) return {};
    if (reply.empty()) return {bytes.data(), length};
    return reply;
  }
  void settle() override {}
};

struct NinePDevice : testing::Test {
  static constexpr u64 kIn = 0x1000, kOut = 0x2000;
  FakeDma dma;
  FakeHost host;
  FakeServer server;
  Device device{std::make_unique<NineP>("home", server), dma, host};
  FakeTransport transport;
  SplitDriver driver{dma, 64};
  NinePDevice() {
    device.attach(transport);
    bring_up(device, feature::version_1, driver.place());
  }
  std::optional<Done> send(u32 readable, u32 writable) {
    driver.add({{kIn, readable}, {kOut, writable, true}});
    device.notify(0);
    return driver.used();
  }
};

TEST_F(NinePDevice, SaysItsTag) {
  u8 config[8];
  device.read_config(0, config);
  EXPECT_EQ(config[0] | config[1] << 8, 4);
  EXPECT_EQ(std::string(reinterpret_cast<char*>(config) + 2, 4), "home");
  device.device_select() = 0;
  EXPECT_EQ(device.device_features() & 1, 1u);
}

TEST_F(NinePDevice, CarriesAMessageThereAndBack) {
  for (u32 i = 0; i < 20; i++) dma.put(kIn + i, static_cast<u8>(i));
  EXPECT_EQ(send(20, 100), (Done{0, 20}));
  for (u32 i = 0; i < 20; i++) EXPECT_EQ(dma.get<u8>(kOut + i), i);
}

TEST_F(NinePDevice, AnswersForAServerThatIsGone) {
  server.there = false;
  dma.put<u16>(kIn + 5, 0x1234);
  EXPECT_EQ(send(20, 100), (Done{0, 11}));
  EXPECT_EQ(dma.get<u32>(kOut), 11u);
  EXPECT_EQ(dma.get<u8>(kOut + 4), 7);
  EXPECT_EQ(dma.get<u16>(kOut + 5), 0x1234);
  EXPECT_EQ(dma.get<u32>(kOut + 7), static_cast<u32>(EIO));
}

TEST_F(NinePDevice, AnAnswerThatDoesNotFitIsAnError) {
  server.reply.assign(200, 9);
  EXPECT_EQ(send(20, 100), (Done{0, 11}));
  EXPECT_EQ(dma.get<u8>(kOut + 4), 7);
  server.reply.assign(3, 9);
  EXPECT_EQ(send(20, 100)->length, 11u);
}

TEST_F(NinePDevice, WhatIsNoMessageIsNotAsked) {
  EXPECT_EQ(send(6, 100)->length, 0u);
  EXPECT_EQ(send(1025, 100)->length, 0u);
  EXPECT_EQ(send(20, 10)->length, 0u);
  EXPECT_TRUE(server.asked.empty());
  EXPECT_EQ(send(1024, 1024)->length, 1024u);
}

}  // namespace
}  // namespace trapline::devices::virtio
