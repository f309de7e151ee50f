// Rings of both formats, with drivers that keep to the specification and drivers that do not.
#include "devices/virtio/queue.h"

#include <gtest/gtest.h>

#include <memory>

#include "support/virtio_driver.h"

namespace trapline::devices::virtio {
namespace {

using test::Buffer;
using test::Done;
using test::DriverRing;
using test::FakeDma;
using test::FakeHost;
using test::FakeTransport;
using test::PackedDriver;
using test::SplitDriver;

constexpr u64 kData = 0x100000;

// Takes requests when it is told to, and keeps them.
struct Keeper final : Backend {
  Keeper() : Backend{{.type = 42, .name = "keeper", .class_code = 0xff0000, .queues = {64, 8}}} {}
  void serve(unsigned index) override {
    do {
      queue(index).hush();
      while (auto request = queue(index).next()) held.push_back(std::move(*request));
    } while (queue(index).listen());
  }
  void stop() override { stops++; }
  std::vector<Request> held;
  unsigned stops = 0;
};

struct Rig {
  FakeDma dma;
  FakeHost host;
  FakeTransport transport;
  Keeper* keeper = new Keeper;
  Device device{std::unique_ptr<Backend>{keeper}, dma, host};
  std::unique_ptr<DriverRing> driver;
  Queue& queue = device.queue(0);

  explicit Rig(bool packed, u16 size = 8, u64 more = feature::indirect_desc) {
    device.attach(transport);
    if (packed)
      driver = std::make_unique<PackedDriver>(dma, size);
    else
      driver = std::make_unique<SplitDriver>(dma, size);
    test::bring_up(device, feature::version_1 | more | (packed ? feature::ring_packed : 0), driver->place());
  }
  ~Rig() { keeper->held.clear(); }
  bool broken() { return device.status() & status::needs_reset; }
  void serve() { keeper->serve(0); }
};

struct Rings : testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(Formats, Rings, testing::Bool(),
                         [](const auto& rings) { return rings.param ? "packed" : "split"; });

TEST_P(Rings, BuffersComeInOrderAndGoBackWithTheirLength) {
  Rig rig{GetParam()};
  rig.dma.put<u64>(kData, 0x1122334455667788);
  const u16 id = rig.driver->add({{kData, 4}, {kData + 4, 4}, {kData + 0x100, 16, true}, {kData + 0x200, 8, true}});
  rig.serve();
  ASSERT_EQ(rig.keeper->held.size(), 1u);
  Request& r = rig.keeper->held[0];
  EXPECT_EQ(r.readable_bytes(), 8u);
  EXPECT_EQ(r.writable_bytes(), 24u);
  u32 middle = 0;
  EXPECT_TRUE(r.read(2, middle));
  EXPECT_EQ(middle, 0x33445566u);
  EXPECT_FALSE(r.read(5, middle));
  EXPECT_TRUE(r.write(14, u32{0xaabbccdd}));
  EXPECT_EQ(rig.dma.get<u16>(kData + 0x10e), 0xccddu);
  EXPECT_EQ(rig.dma.get<u16>(kData + 0x200), 0xaabbu);
  EXPECT_FALSE(r.write(21, u32{0}));
  EXPECT_EQ(rig.driver->used(), std::nullopt);
  rig.queue.finish(std::move(r), 18);
  EXPECT_EQ(rig.driver->used(), (Done{id, 18}));
  EXPECT_EQ(rig.host.interrupts, 1u);
  EXPECT_FALSE(rig.broken());
}

TEST_P(Rings, WhatBelongsTogetherIsSeenAtOnce) {
  Rig rig{GetParam()};
  for (unsigned round = 0; round < 10; round++) {
    std::vector<u16> ids;
    for (u64 i = 0; i < 3; i++) ids.push_back(rig.driver->add({{kData + 16 * i, 16, true}}));
    rig.serve();
    std::vector<Given> all;
    for (Request& r : rig.keeper->held) all.push_back({std::move(r), static_cast<u32>(all.size() + 1)});
    rig.keeper->held.clear();
    ASSERT_EQ(all.size(), 3u);
    unsigned looks = 0;
    rig.dma.look = [&] { EXPECT_EQ((looks++, rig.driver->used()), std::nullopt) << round; };
    rig.queue.complete(all);
    rig.dma.look = [] {};
    EXPECT_EQ(looks, 6u);
    for (u32 i = 0; i < 3; i++) EXPECT_EQ(rig.driver->used(), (Done{ids[i], i + 1}));
    EXPECT_EQ(rig.driver->used(), std::nullopt);
  }
  EXPECT_EQ(rig.device.in_flight(), 0u);
}

// A worker that finds rings to be nonsense may say so only when the driver has begun anew.
TEST_P(Rings, WhatBrokeBeforeAResetBreaksNothingAfterIt) {
  Rig rig{GetParam()};
  const u64 before = rig.device.life();
  rig.device.write_status(0);
  test::bring_up(rig.device, feature::version_1 | (GetParam() ? feature::ring_packed : 0), rig.driver->place());
  rig.device.fail(before);
  EXPECT_FALSE(rig.broken());
  EXPECT_TRUE(rig.queue.running());
  EXPECT_EQ(rig.host.interrupts, 0u);
  rig.device.fail(rig.device.life());
  EXPECT_TRUE(rig.broken());
  EXPECT_FALSE(rig.queue.running());
}

// 2.1: a driver may have written to queues before it said anything of itself.
TEST_P(Rings, AResetEndsWhatWasEnabledWithoutAStatus) {
  Rig rig{GetParam()};
  rig.device.write_status(0);
  rig.device.queue_select() = 0;
  rig.device.write_place(&RingPlace::descriptors, 0, 0x7000);
  rig.device.enable();
  rig.device.write_status(0);
  EXPECT_FALSE(rig.device.selected()->enabled);
  EXPECT_EQ(rig.device.selected()->place.descriptors, Gpa{});
}

// Engines forget code under what the device may have written, before the driver is told.
TEST_P(Rings, WritableBuffersAreToldOfAsWritten) {
  Rig rig{GetParam()};
  rig.driver->add({{kData, 4}, {kData + 0x1000, 0x2000, true}});
  rig.serve();
  rig.dma.writes.clear();
  rig.queue.complete(std::move(rig.keeper->held[0]), 1);
  ASSERT_FALSE(rig.dma.writes.empty());
  EXPECT_EQ(rig.dma.writes[0], (std::pair<u64, u64>{kData + 0x1000, 0x2000}));
}

TEST_P(Rings, ManyRoundsOutOfOrder) {
  Rig rig{GetParam()};
  for (unsigned round = 0; round < 20'000; round++) {  // past every wrap of 16 bits
    const u16 first = rig.driver->add({{kData, 8}, {kData + 64, 8, true}});
    const u16 second = rig.driver->add({{kData, 8}, {kData + 128, 8, true}}, round % 2);
    rig.serve();
    ASSERT_EQ(rig.keeper->held.size(), 2u);
    rig.queue.complete(std::move(rig.keeper->held[1]), 2);
    ASSERT_EQ(rig.driver->used(), (Done{second, 2}));
    rig.queue.complete(std::move(rig.keeper->held[0]), 1);
    ASSERT_EQ(rig.driver->used(), (Done{first, 1}));
    ASSERT_EQ(rig.driver->used(), std::nullopt);
    rig.keeper->held.clear();
  }
}

TEST_P(Rings, IndirectTablesCountAsTheirBuffers) {
  Rig rig{GetParam()};
  std::vector<Buffer> many;
  for (u64 i = 0; i < 100; i++) many.push_back({kData + 16 * i, 16, i >= 50});
  const u16 id = rig.driver->add(many, true);
  rig.serve();
  ASSERT_EQ(rig.keeper->held.size(), 1u);
  EXPECT_EQ(rig.keeper->held[0].readable().size(), 50u);
  EXPECT_EQ(rig.keeper->held[0].writable_bytes(), 800u);
  rig.queue.finish(std::move(rig.keeper->held[0]), 800);
  EXPECT_EQ(rig.driver->used(), (Done{id, 800}));
}

TEST_P(Rings, InterruptsAndNotificationsAreSuppressed) {
  Rig rig{GetParam()};
  rig.driver->want_interrupts(false);
  rig.driver->add({{kData, 4, true}});
  rig.serve();
  EXPECT_TRUE(rig.driver->notifications_wanted());  // it has listened
  rig.queue.hush();
  EXPECT_FALSE(rig.driver->notifications_wanted());
  EXPECT_FALSE(rig.queue.listen());
  EXPECT_TRUE(rig.driver->notifications_wanted());
  rig.queue.finish(std::move(rig.keeper->held[0]), 4);
  EXPECT_EQ(rig.host.interrupts, 0u);
  rig.driver->want_interrupts(true);
  rig.driver->add({{kData, 4, true}});
  EXPECT_TRUE(rig.queue.listen());
  rig.keeper->held.clear();
  rig.serve();
  rig.queue.finish(std::move(rig.keeper->held[0]), 4);
  rig.queue.signal();  // nothing new
  EXPECT_EQ(rig.host.interrupts, 1u);
}

// -- Drivers that do not keep to it.

struct Wrong {
  const char* name;
  std::vector<Buffer> chain;
};
void PrintTo(const Wrong& w, std::ostream* out) { *out << w.name; }

struct WrongBuffers : testing::TestWithParam<std::tuple<bool, Wrong, bool>> {};
INSTANTIATE_TEST_SUITE_P(
    All, WrongBuffers,
    testing::Combine(testing::Bool(),
                     testing::Values(Wrong{"past_ram", {{4 * MiB - 8, 9}}}, Wrong{"behind_ram", {{1 * GiB, 1}}},
                                     Wrong{"in_the_video_hole", {{0x9fff0, 0x20}}},
                                     Wrong{"in_mmio", {{0xfec00000, 4, true}}},
                                     Wrong{"wrapping_around", {{~u64{0} - 3, 8}}},
                                     Wrong{"longer_than_ram", {{0, ~u32{0}}}},
                                     Wrong{"readable_after_writable", {{kData, 4, true}, {kData, 4}}},
                                     Wrong{"readable_after_an_empty_writable_and_more",
                                           {{kData, 0, true}, {kData, 4, true}, {kData, 4}}}),
                     testing::Bool()),
    [](const auto& which) {
      return std::string{std::get<1>(which.param).name} + (std::get<0>(which.param) ? "_packed" : "_split") +
             (std::get<2>(which.param) ? "_indirect" : "");
    });

TEST_P(WrongBuffers, NeedAReset) {
  const auto& [packed, wrong, indirect] = GetParam();
  Rig rig{packed};
  rig.driver->add(wrong.chain, indirect);
  rig.serve();
  EXPECT_TRUE(rig.keeper->held.empty());
  EXPECT_TRUE(rig.broken());
  EXPECT_EQ(rig.host.config_interrupts, 1u);
  // A reset makes it good again.
  rig.driver = packed ? std::unique_ptr<DriverRing>{std::make_unique<PackedDriver>(rig.dma, u16{8})}
                      : std::make_unique<SplitDriver>(rig.dma, u16{8});
  std::memset(rig.dma.ram.host(Gpa{DriverRing::kTable}), 0, 0x30000);
  test::bring_up(rig.device, feature::version_1 | (packed ? feature::ring_packed : 0), rig.driver->place());
  rig.driver->add({{kData, 4}});
  rig.serve();
  EXPECT_EQ(rig.keeper->held.size(), 1u);
  EXPECT_FALSE(rig.broken());
}

struct SplitRig : Rig {
  explicit SplitRig(u64 more = feature::indirect_desc) : Rig{false, 8, more} {}
  SplitDriver& d = static_cast<SplitDriver&>(*driver);
  void expect_broken() {
    serve();
    EXPECT_TRUE(broken());
    EXPECT_TRUE(keeper->held.empty());
  }
};

TEST(HostileSplitRing, ALoopOfDescriptors) {
  SplitRig rig;
  rig.d.descriptor(DriverRing::kTable, 0, {kData, 4}, 1, 1);
  rig.d.descriptor(DriverRing::kTable, 1, {kData, 4}, 1, 0);
  rig.d.publish(0);
  rig.expect_broken();
}

TEST(HostileSplitRing, AHeadOrNextPastTheTable) {
  for (const bool head : {true, false}) {
    SplitRig rig;
    rig.d.descriptor(DriverRing::kTable, 0, {kData, 4}, 1, 8);
    rig.d.publish(head ? 8 : 0);
    rig.expect_broken();
  }
}

TEST(HostileSplitRing, AnIndexThatJumps) {
  SplitRig rig;
  rig.d.descriptor(DriverRing::kTable, 0, {kData, 4}, 0, 0);
  rig.dma.put<u16>(DriverRing::kDriver + 2, 9);
  rig.expect_broken();
}

TEST(HostileSplitRing, IndirectWithinIndirectOrWithNextOrNotNegotiated) {
  const auto add = [](SplitRig& rig, u16 outer, u16 inner, u32 length) {
    rig.d.descriptor(DriverRing::kIndirect, 0, {kData, 4}, inner, 0);
    rig.d.descriptor(DriverRing::kTable, 0, {DriverRing::kIndirect, length}, outer, 1);
    rig.d.publish(0);
    rig.expect_broken();
  };
  SplitRig nested, next, empty, odd, long_one, outside, none{0};
  add(nested, 4, 4, 16);
  add(next, 5, 0, 16);
  add(empty, 4, 0, 0);
  add(odd, 4, 0, 24);
  add(long_one, 4, 0, 16 * (kLargestQueue + 1));
  add(none, 4, 0, 16);
  outside.d.descriptor(DriverRing::kTable, 0, {4 * MiB - 16, 32}, 4, 0);
  outside.d.publish(0);
  outside.expect_broken();
}

TEST(HostileSplitRing, ALoopWithinAnIndirectTable) {
  SplitRig rig;
  rig.d.descriptor(DriverRing::kIndirect, 0, {kData, 4}, 1, 1);
  rig.d.descriptor(DriverRing::kIndirect, 1, {kData, 4}, 1, 0);
  rig.d.descriptor(DriverRing::kTable, 0, {DriverRing::kIndirect, 32}, 4, 0);
  rig.d.publish(0);
  rig.expect_broken();
}

// Each descriptor made available again and again before it is back: memory here stays bounded.
TEST_P(Rings, NoMoreInFlightThanTheRingHasDescriptors) {
  Rig rig{GetParam()};
  for (unsigned round = 0; round < 10; round++) {
    for (unsigned i = 0; i < 8; i++) rig.driver->add({{kData, 4}});
    rig.serve();
    ASSERT_LE(rig.keeper->held.size(), 8u);
  }
}

TEST(HostileSplitRing, PlacesThatCannotBe) {
  const auto starts = [](const RingPlace& place, u64 features = feature::version_1) {
    Rig rig{false};
    rig.device.write_status(0);
    test::bring_up(rig.device, features, place);
    const bool started = !rig.broken();
    EXPECT_EQ(rig.transport.config_interrupts, started ? 0u : 1u);
    return started;
  };
  const u64 packed = feature::version_1 | feature::ring_packed;
  EXPECT_TRUE(starts({Gpa{0x10000}, Gpa{0x20000}, Gpa{0x30000}, 8}));
  EXPECT_FALSE(starts({Gpa{0x10008}, Gpa{0x20000}, Gpa{0x30000}, 8}));
  EXPECT_FALSE(starts({Gpa{0x10000}, Gpa{0x20001}, Gpa{0x30000}, 8}));
  EXPECT_FALSE(starts({Gpa{0x10000}, Gpa{0x20000}, Gpa{0x30002}, 8}));
  EXPECT_FALSE(starts({Gpa{0x10000}, Gpa{0x20000}, Gpa{0xfec00000}, 8}));
  EXPECT_FALSE(starts({Gpa{0xc0000000}, Gpa{0x20000}, Gpa{0x30000}, 8}));
  EXPECT_FALSE(starts({Gpa{0x10000}, Gpa{0x9fff0}, Gpa{0x30000}, 8}));
  EXPECT_FALSE(starts({Gpa{0x10000}, Gpa{0x20000}, Gpa{4 * MiB - 8}, 8}));
  EXPECT_FALSE(starts({Gpa{0x10000}, Gpa{0x20000}, Gpa{0x30000}, 6}));  // no power of two
  EXPECT_FALSE(starts({Gpa{0x10000}, Gpa{0x20000}, Gpa{0x30000}, 0}));
  EXPECT_TRUE(starts({Gpa{0x10000}, Gpa{0x20000}, Gpa{0x30000}, 6}, packed));
  EXPECT_FALSE(starts({Gpa{0x10000}, Gpa{0x20002}, Gpa{0x30000}, 6}, packed));
  EXPECT_FALSE(starts({Gpa{0x10000}, Gpa{0x20000}, Gpa{0xc0000000}, 6}, packed));
  EXPECT_TRUE(starts({Gpa{0x10000}, Gpa{0x20000}, Gpa{0x30000}, 65}));  // too large a size is not taken over
}

// All three areas and the data in one place: nonsense, but nothing of ours may break.
TEST_P(Rings, RingsInThemselves) {
  Rig rig{GetParam()};
  rig.device.write_status(0);
  test::bring_up(rig.device, feature::version_1 | (GetParam() ? feature::ring_packed : 0),
                 {Gpa{0x10000}, Gpa{0x10000}, Gpa{0x10000}, 8});
  for (u64 i = 0; i < 256; i += 2) rig.dma.put<u16>(0x10000 + i, 1);
  for (unsigned i = 0; i < 20; i++) {
    rig.serve();
    for (Request& r : rig.keeper->held) rig.queue.finish(std::move(r), 0);
    rig.keeper->held.clear();
  }
}

TEST(SplitRingEvents, DriverIsInterruptedAtItsIndexOnly) {
  SplitRig rig{feature::event_index};
  rig.d.used_event(2);
  unsigned expected[] = {0, 0, 1, 1, 1};
  for (const unsigned interrupts : expected) {
    rig.d.add({{kData, 4, true}});
    rig.serve();
    rig.queue.finish(std::move(rig.keeper->held[0]), 4);
    rig.keeper->held.clear();
    EXPECT_EQ(rig.host.interrupts, interrupts);
  }
  EXPECT_EQ(rig.d.available_event(), 5u);  // rings again with the next
}

TEST(PackedRingEvents, DriverIsInterruptedAtItsPositionOnly) {
  Rig rig{true, 8, feature::event_index};
  const auto step = [&] {
    rig.driver->add({{kData, 4, true}});
    rig.serve();
    rig.queue.finish(std::move(rig.keeper->held[0]), 4);
    rig.keeper->held.clear();
    return rig.host.interrupts;
  };
  rig.dma.put<u16>(DriverRing::kDriver, 2 | 1 << 15);
  rig.dma.put<u16>(DriverRing::kDriver + 2, kEventsAt);
  EXPECT_EQ(step(), 0u);
  EXPECT_EQ(step(), 0u);
  EXPECT_EQ(step(), 1u);
  for (unsigned i = 0; i < 5; i++) EXPECT_EQ(step(), 1u);
  rig.dma.put<u16>(DriverRing::kDriver, 1);  // of the next lap
  EXPECT_EQ(step(), 1u);
  EXPECT_EQ(step(), 2u);
  EXPECT_EQ(rig.dma.get<u16>(DriverRing::kDevice) & 0x7fff, 2u);
}

// -- Reset.

TEST_P(Rings, ResetInFlightIsOverWhenTheLastRequestIsBack) {
  Rig rig{GetParam()};
  for (unsigned i = 0; i < 3; i++) rig.driver->add({{kData, 4, true}});
  rig.serve();
  ASSERT_EQ(rig.keeper->held.size(), 3u);
  rig.device.write_status(0);
  EXPECT_EQ(rig.keeper->stops, 1u);
  EXPECT_NE(rig.device.status(), 0u);
  rig.device.write_status(status::acknowledge);  // does not count before it is over
  const auto before = rig.dma.get<u64>(DriverRing::kDevice);
  rig.queue.finish(std::move(rig.keeper->held[0]), 4);
  EXPECT_EQ(rig.dma.get<u64>(DriverRing::kDevice), before);
  EXPECT_EQ(rig.driver->used(), std::nullopt);
  EXPECT_EQ(rig.host.interrupts, 0u);
  EXPECT_NE(rig.device.status(), 0u);
  rig.keeper->held.clear();  // the others are dropped
  EXPECT_EQ(rig.device.status(), 0u);
  EXPECT_EQ(rig.queue.next(), std::nullopt);
}

TEST(Negotiation, NeedsVersion1AndNothingThatWasNotOffered) {
  Rig rig{false};
  const auto accepted = [&](u64 features) {
    rig.device.write_status(0);
    test::bring_up(rig.device, features, rig.driver->place());
    const u8 now = rig.device.status();
    EXPECT_EQ((now & status::features_ok) != 0, (now & status::driver_ok) != 0);
    return (now & status::features_ok) != 0;
  };
  EXPECT_FALSE(accepted(0));
  EXPECT_TRUE(accepted(feature::version_1));
  EXPECT_FALSE(accepted(feature::version_1 | u64{1} << 5));
  EXPECT_TRUE(accepted(feature::of_rings));
  EXPECT_FALSE(accepted(feature::of_rings | u64{1} << 63));
}

TEST(Negotiation, NothingMovesOnceItIsSettled) {
  Rig rig{false};
  const auto before = rig.device.save();
  rig.device.write_driver_features(0);
  rig.device.write_size(4);
  rig.device.write_place(&RingPlace::device, 0, 0x50000);
  EXPECT_EQ(rig.device.save().features, before.features);
  EXPECT_TRUE(rig.device.save().queues == before.queues);
  rig.device.queue_select() = 7;  // there is none
  EXPECT_EQ(rig.device.selected(), nullptr);
  rig.device.write_size(4);
  rig.device.enable();
}

}  // namespace
}  // namespace trapline::devices::virtio
