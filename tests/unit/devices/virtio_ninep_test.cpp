#include "devices/virtio/ninep.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <functional>
#include <thread>

#include "support/virtio_driver.h"

namespace trapline::devices::virtio {
namespace {

using namespace trapline::test;

// Answers with the request's bytes, or with what it is told; requests that begin with kSlow once it is told to.
struct FakeServer final : MessageServer {
  static constexpr u8 kSlow = 0xee;
  struct Slot {
    std::vector<u8> bytes = std::vector<u8>(1024);
    std::size_t length = 0;
    std::atomic<bool> busy{false};
  };
  std::array<Slot, 2> all;
  std::vector<u8> told;
  bool there = true;
  std::vector<std::size_t> asked;
  std::function<void()> on_await = [] {};
  std::atomic<u32> answers_{0};
  std::atomic<bool> letting_go{false};

  void finish(unsigned slot) {
    all[slot].busy = false;
    answers_++;
    answers_.notify_all();
  }
  void end() {
    letting_go = true;
    answers_++;
    answers_.notify_all();
  }
  unsigned slots() const override { return 2; }
  std::span<u8> room(unsigned slot) override { return all[slot].bytes; }
  void post(unsigned slot, std::size_t length, u16) override {
    asked.push_back(length);
    all[slot].length = length;
    all[slot].busy = all[slot].bytes[0] == kSlow;
  }
  bool busy(unsigned slot) const override { return all[slot].busy; }
  bool answered(unsigned slot) const override { return letting_go || !all[slot].busy; }
  bool await(unsigned slot, bool) override {
    on_await();
    return answered(slot);
  }
  std::span<const u8> reply(unsigned slot) override {
    if (!there || all[slot].busy) return {};
    if (told.empty()) return {all[slot].bytes.data(), all[slot].length};
    return told;
  }
  u32 answers() const override { return answers_; }
  void await_more(u32 seen) override {
    if (!letting_go) answers_.wait(seen);
  }
  bool let_go() const override { return letting_go; }
  void settle() override {
    for (unsigned i = 0; i < slots(); i++) finish(i);
  }
};

struct NinePDevice : testing::Test {
  static constexpr u64 kIn = 0x1000, kOut = 0x2000;
  FakeDma dma;
  FakeHost host;
  FakeServer server;
  Device device{std::make_unique<NineP>("home", server), dma, host};
  NineP& ninep = static_cast<NineP&>(device.backend());
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
  // Its number; each has its own bytes.
  u16 add(u8 first_byte) {
    const u64 in = kIn + 0x40 * posted_, out = kOut + 0x40 * posted_;
    posted_++;
    dma.put(in, first_byte);
    return driver.add({{in, 20}, {out, 40, true}});
  }
  u16 post(u8 first_byte) {
    const u16 id = add(first_byte);
    device.notify(0);
    return id;
  }
  Done next_used() {
    for (;;) {
      if (auto done = driver.used()) return *done;
      std::this_thread::yield();
    }
  }
  u64 posted_ = 0;
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
  server.told.assign(200, 9);
  EXPECT_EQ(send(20, 100), (Done{0, 11}));
  EXPECT_EQ(dma.get<u8>(kOut + 4), 7);
  server.told.assign(3, 9);
  EXPECT_EQ(send(20, 100)->length, 11u);
}

TEST_F(NinePDevice, WhatIsNoMessageIsNotAsked) {
  EXPECT_EQ(send(6, 100)->length, 0u);
  EXPECT_EQ(send(1025, 100)->length, 0u);
  EXPECT_EQ(send(20, 10)->length, 0u);
  EXPECT_TRUE(server.asked.empty());
  EXPECT_EQ(send(1024, 1024)->length, 1024u);
}

TEST_F(NinePDevice, ASlowRequestHoldsNoOther) {
  std::thread collector{[&] { ninep.collect(); }};
  const u16 slow = post(FakeServer::kSlow), quick = post(1), next = post(2);
  EXPECT_EQ(next_used(), (Done{quick, 20}));
  EXPECT_EQ(next_used(), (Done{next, 20}));
  EXPECT_FALSE(driver.used());
  server.finish(0);
  EXPECT_EQ(next_used(), (Done{slow, 20}));
  EXPECT_EQ(dma.get<u8>(kOut), FakeServer::kSlow);
  ninep.close(true);
  collector.join();
}

TEST_F(NinePDevice, ARequestWaitsForASlot) {
  std::thread collector{[&] { ninep.collect(); }};
  const u16 first = add(FakeServer::kSlow), second = add(FakeServer::kSlow), third = add(1);
  std::thread worker{[&] { device.notify(0); }};
  while (!server.busy(0) || !server.busy(1)) std::this_thread::yield();
  server.finish(1);
  EXPECT_EQ(next_used(), (Done{second, 20}));
  worker.join();
  EXPECT_EQ(next_used(), (Done{third, 20}));
  server.finish(0);
  EXPECT_EQ(next_used(), (Done{first, 20}));
  ninep.close(true);
  collector.join();
}

// What a Tflush names is the driver's again before the Rflush is: it may use the tag anew then.
TEST_F(NinePDevice, AnswersComeInTheServersOrder) {
  const u16 slow = post(FakeServer::kSlow);
  server.on_await = [&] { server.finish(0); };
  const u16 quick = post(1);
  EXPECT_EQ(next_used(), (Done{slow, 20}));
  EXPECT_EQ(next_used(), (Done{quick, 20}));
}

TEST_F(NinePDevice, AResetWaitsForNoAnswer) {
  post(FakeServer::kSlow);
  EXPECT_EQ(device.in_flight(), 1u);
  device.write_status(0);
  EXPECT_EQ(device.in_flight(), 0u);
  EXPECT_EQ(device.status(), 0);
  SplitDriver again{dma, 64};
  dma.put<u16>(SplitDriver::kDriver + 2, 0);
  dma.put<u16>(SplitDriver::kDevice + 2, 0);
  bring_up(device, feature::version_1, again.place());
  again.add({{kIn + 0x800, 20}, {kOut + 0x800, 40, true}});
  device.notify(0);
  EXPECT_TRUE(again.used());
  server.finish(0);
  EXPECT_FALSE(again.used()) << "the answer to what the last driver asked";
  ninep.settle();
}

TEST_F(NinePDevice, EndsWithAnswersOutstanding) {
  std::thread collector{[&] { ninep.collect(); }};
  add(FakeServer::kSlow), add(FakeServer::kSlow), add(1);
  std::thread worker{[&] { device.notify(0); }};
  while (!server.busy(0) || !server.busy(1)) std::this_thread::yield();
  server.end();
  ninep.close(true);
  worker.join();
  collector.join();
  ninep.settle();
  EXPECT_EQ(device.in_flight(), 0u);
}

TEST(NinePAtOnce, WaitsForEachAnswer) {
  FakeDma dma;
  FakeHost host;
  FakeServer server;
  Device device{std::make_unique<NineP>("home", server, true), dma, host};
  FakeTransport transport;
  SplitDriver driver{dma, 64};
  device.attach(transport);
  bring_up(device, feature::version_1, driver.place());
  server.on_await = [&] { server.finish(0); };
  dma.put(u64{0x1000}, FakeServer::kSlow);
  driver.add({{0x1000, 20}, {0x2000, 40, true}});
  device.notify(0);
  EXPECT_TRUE(driver.used());
}

}  // namespace
}  // namespace trapline::devices::virtio
