// Devices by vhost-user: the ring between monitor and back end, the connection, and a device over both, with back ends
// that keep to the protocol and such as lie, fall silent or go.
#include "monitor/vhost/vhost_device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <random>

#include "support/vhost_back_end.h"
#include "support/virtio_driver.h"

namespace trapline::monitor::vhost {
namespace {

using devices::virtio::Descriptor;
using devices::virtio::Request;
using test::Buffer;
using test::FakeDma;
using test::SplitDriver;
using test::VhostBackEnd;
using testing::HasSubstr;

// -- The ring, whose device is played here.

struct RingTest : testing::TestWithParam<bool> {
  static constexpr u64 kAt = u64{1} << 40;
  FakeDma dma;
  std::vector<std::byte> memory = std::vector<std::byte>(ShadowRing::kBytes);
  ShadowRing ring{memory.data(), kAt};
  u16 taken = 0, given = 0;

  RingTest() { ring.restart(GetParam()); }
  template <class T>
  T get(u64 at) const {
    T value;
    std::memcpy(&value, &memory[at], sizeof value);
    return value;
  }
  template <class T>
  void put(u64 at, const T& value) {
    std::memcpy(&memory[at], &value, sizeof value);
  }
  Request request(unsigned reads, unsigned writes, u64 seed = 0) {
    Request r;
    for (unsigned i = 0; i < reads + writes; i++)
      EXPECT_TRUE(r.add(dma, Gpa{0x1000 + 64 * (seed % 1000 + i)}, 1 + i % 60, i >= reads));
    return r;
  }
  // The next chain: its head, and as (address, length, written by the device).
  std::optional<u16> take() {
    if (get<u16>(ShadowRing::kAvailable + 2) == taken) return std::nullopt;
    return get<u16>(ShadowRing::kAvailable + 4 + 2 * u64{static_cast<u16>(taken++ % ShadowRing::kSize)});
  }
  std::vector<Descriptor> chain(u16 head) const {
    std::vector<Descriptor> all;
    u64 table = 0;
    auto d = get<Descriptor>(16 * u64{head});
    if (d.flags & 4) {
      table = d.address.raw - kAt;
      EXPECT_GE(d.address.raw, kAt);
      EXPECT_EQ(d.length % 16, 0u);
      d = get<Descriptor>(table);
    }
    for (;; d = get<Descriptor>(table + 16 * u64{d.next})) {
      all.push_back(d);
      if (!(d.flags & 1)) return all;
    }
  }
  void give(u32 id, u32 length) {
    put(ShadowRing::kUsed + 4 + 8 * u64{static_cast<u16>(given % ShadowRing::kSize)},
        devices::virtio::UsedElement{id, length});
    put(ShadowRing::kUsed + 2, ++given);
  }
};

TEST_P(RingTest, ChainsArriveAsTheyWere) {
  Request r = request(2, 3);
  ASSERT_TRUE(ring.push(r));
  EXPECT_FALSE(take()) << "not before they are published";
  EXPECT_TRUE(ring.publish());
  const auto head = take();
  ASSERT_TRUE(head);
  const auto all = chain(*head);
  ASSERT_EQ(all.size(), 5u);
  for (unsigned i = 0; i < 5; i++) {
    EXPECT_EQ(all[i].address.raw, 0x1000 + 64 * i);
    EXPECT_EQ(all[i].length, 1 + i);
    EXPECT_EQ(all[i].flags & 2, i >= 2 ? 2 : 0);
  }
  give(*head, 7);
  ShadowRing::Used used{};
  ASSERT_EQ(ring.take(used), ShadowRing::Take::used);
  EXPECT_EQ(used.written, 7u);
  EXPECT_EQ(used.request.writable().size(), 3u);
  EXPECT_EQ(ring.take(used), ShadowRing::Take::nothing);
}

TEST_P(RingTest, ManyAtOnceInAnyOrder) {
  std::mt19937_64 random{1};
  std::vector<std::pair<u16, u64>> held;  // head, address of its first buffer
  u64 pushed = 0, back = 0;
  for (unsigned step = 0; step < 100'000; step++) {
    if (random() % 2 == 0) {
      Request r = request(1 + static_cast<unsigned>(random() % 4), static_cast<unsigned>(random() % 4), random());
      if (!ring.push(r)) {
        ASSERT_FALSE(r.readable().empty()) << "it was not taken";
        ASSERT_FALSE(held.empty()) << "an empty ring has room";
        continue;
      }
      pushed++;
      ring.publish();
      const auto head = take();
      ASSERT_TRUE(head);
      held.emplace_back(*head, chain(*head)[0].address.raw);
    } else if (!held.empty()) {
      std::swap(held[random() % held.size()], held.back());
      give(held.back().first, 0);
      ShadowRing::Used used{};
      ASSERT_EQ(ring.take(used), ShadowRing::Take::used);
      EXPECT_EQ(used.request.readable()[0].at.raw, held.back().second);
      held.pop_back();
      back++;
    }
  }
  EXPECT_GT(pushed, 40'000u);
  EXPECT_EQ(ring.in_flight(), held.size());
  EXPECT_EQ(ring.clear().size(), held.size());
  EXPECT_EQ(pushed - back, held.size());
}

TEST_P(RingTest, WhatCannotBeIsFoundOut) {
  const auto one = [this] {
    (void)ring.clear();
    ring.restart(GetParam());
    taken = given = 0;
    Request r = request(1, 1);
    EXPECT_TRUE(ring.push(r));
    ring.publish();
    return *take();
  };
  ShadowRing::Used used{};
  one();
  give(ShadowRing::kSize, 0);
  EXPECT_EQ(ring.take(used), ShadowRing::Take::broken) << "no such descriptor";
  const u16 head = one();
  give(head + 1u, 0);
  EXPECT_EQ(ring.take(used), ShadowRing::Take::broken) << "one that is not in flight";
  one();
  put<u16>(ShadowRing::kUsed + 2, 2);
  EXPECT_EQ(ring.take(used), ShadowRing::Take::broken) << "more than there are";
  const u16 twice = one();
  give(twice, 0);
  EXPECT_EQ(ring.take(used), ShadowRing::Take::used);
  give(twice, 0);
  EXPECT_EQ(ring.take(used), ShadowRing::Take::broken) << "twice";
  give(one(), 0xffffffff);
  EXPECT_EQ(ring.take(used), ShadowRing::Take::used);
  EXPECT_EQ(used.written, used.request.writable_bytes()) << "no more than there is room for";
}

// The table is the back end's to scribble on: which chain is which is known here.
TEST_P(RingTest, AScribbledTableChangesNothingHere) {
  for (unsigned round = 0; round < 1000; round++) {
    Request r = request(3, 3);
    ASSERT_TRUE(ring.push(r)) << round;
    ring.publish();
    const u16 head = *take();
    std::memset(memory.data(), 0xff, ShadowRing::kAvailable);
    give(head, 0);
    ShadowRing::Used used{};
    ASSERT_EQ(ring.take(used), ShadowRing::Take::used);
  }
}

TEST_P(RingTest, NotificationsAreForThoseWhoWantThem) {
  put<u16>(ShadowRing::kUsed, 1);
  Request r = request(1, 0);
  ASSERT_TRUE(ring.push(r));
  EXPECT_FALSE(ring.publish());
  put<u16>(ShadowRing::kUsed, 0);
  EXPECT_FALSE(ring.publish()) << "nothing new";
}

INSTANTIATE_TEST_SUITE_P(Tables, RingTest, testing::Bool(), [](const testing::TestParamInfo<bool>& tables) {
  return tables.param ? "indirect" : "direct";
});

// -- The connection.

std::vector<u8> message(u32 command, u32 flags, u32 size, std::size_t sent) {
  std::vector<u8> bytes(sizeof(Header) + sent);
  const Header header{command, flags, size};
  std::memcpy(bytes.data(), &header, sizeof header);
  return bytes;
}

// What is asked first, answered by these bytes; what is said of it. Silence is cut short.
std::string complaint(std::vector<u8> answer) {
  VhostBackEnd back_end;
  back_end.lies[Command::get_features] = std::move(answer);
  Link link{Fd{back_end.serve()}};
  link.hurry(true);
  EXPECT_FALSE(link.ask(Command::get_features));
  EXPECT_FALSE(link.open());
  EXPECT_FALSE(link.tell(Command::set_owner)) << "nothing is asked after that";
  return link.why();
}

TEST(VhostLink, AnswersThatCannotBeEndIt) {
  constexpr u32 kGet = 1, kGood = kVersion | kReply;
  EXPECT_THAT(complaint(message(kGet, kGood, 4, 4)), HasSubstr("protocol")) << "too short";
  EXPECT_THAT(complaint(message(kGet, kGood, 0xffffffff, 8)), HasSubstr("protocol")) << "no end";
  EXPECT_THAT(complaint(message(kGet, kVersion, 8, 8)), HasSubstr("protocol")) << "no answer";
  EXPECT_THAT(complaint(message(kGet, kReply | 2, 8, 8)), HasSubstr("protocol")) << "another version";
  EXPECT_THAT(complaint(message(kGet + 1, kGood, 8, 8)), HasSubstr("protocol")) << "to something else";
  EXPECT_THAT(complaint(message(kGet, kGood, 8, 5)), HasSubstr("does not answer")) << "cut short";
  EXPECT_THAT(complaint({}), HasSubstr("does not answer"));
}

TEST(VhostLink, AnEndIsHeard) {
  int ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
  Link link{Fd{ends[0]}};
  ::close(ends[1]);
  EXPECT_FALSE(link.ask(Command::get_features));
  EXPECT_EQ(link.why(), "it has ended");
}

TEST(VhostLink, ARefusalIsAnEnd) {
  VhostBackEnd back_end;
  auto no = message(static_cast<u32>(Command::set_owner), kVersion | kReply, 8, 8);
  no.back() = 1;
  back_end.lies[Command::set_owner] = no;
  Link link{Fd{back_end.serve()}};
  link.acknowledge(true);
  EXPECT_FALSE(link.tell(Command::set_owner));
  EXPECT_EQ(link.why(), "it refuses SET_OWNER");
}

// -- A device: a driver's ring on one side, a back end on the other.

struct MemfdDma final : devices::virtio::Dma {
  Fd fd{*GuestMemory::create_fd(4 * MiB)};
  GuestMemory ram = std::move(*GuestMemory::map(fd.get(), 4 * MiB));
  std::atomic<u64> told{0};
  std::function<void(Gpa)> seen = [](Gpa) {};
  std::optional<std::span<std::byte>> bytes(Gpa at, u64 length) const override { return ram.bytes(at, length); }
  void written(Gpa at, u64) override { told++, seen(at); }
  void give_back(Gpa, u64) override {}
};

struct DeviceTest : testing::Test, devices::virtio::Host, devices::virtio::Transport {
  static constexpr u64 kTable = 0x10000, kDriver = 0x20000, kDevice = 0x30000, kRequest = 0x100000;
  MemfdDma dma;
  VhostBackEnd back_end;
  std::mutex complaining;
  std::vector<std::string> complaints;
  std::unique_ptr<devices::virtio::Device> device;
  std::function<std::unique_ptr<Peer>()> again;
  VhostDevice* vhost = nullptr;
  std::thread thread;
  u16 made = 0;

  void interrupt(devices::virtio::Device&, unsigned) override {}
  void interrupt(unsigned) override {}
  void config_changed() override {}
  void rung(devices::virtio::Device&, unsigned queue) override { vhost->serve(queue); }
  ~DeviceTest() override { end(); }

  template <class T>
  T get(u64 at) {
    T value;
    std::memcpy(&value, dma.ram.host(Gpa{at}), sizeof value);
    return value;
  }
  template <class T>
  void put(u64 at, const T& value) {
    std::memcpy(dma.ram.host(Gpa{at}), &value, sizeof value);
  }
  void make(std::unique_ptr<DeviceKind> kind, bool with_config = true) {
    auto peer = std::make_shared<Peer>(Fd{back_end.serve()});
    peer->what = "--disk vhost-user=x";
    peer->features = back_end.features;
    peer->protocol_features = back_end.protocol;
    peer->link.acknowledge(back_end.protocol & protocol_feature::reply_ack);
    if (with_config) peer->config = back_end.config;
    peer->again = again;
    auto backend = std::make_unique<VhostDevice>(peer, std::move(kind), [this](const std::string& line) {
      std::lock_guard guard{complaining};
      complaints.push_back(line);
    });
    vhost = backend.get();
    device = std::make_unique<devices::virtio::Device>(std::move(backend), dma, *this);
    device->attach(*this);
    power_on();
  }
  void power_on() {
    vhost->attach_ram(dma.fd.get(), 4 * MiB);
    vhost->begin();
    thread = std::thread{[this] { vhost->run(); }};
  }
  void end() {
    if (!thread.joinable()) return;
    vhost->end();
    thread.join();
    vhost->settle();
    device->reset();
  }
  void drive(u64 features = devices::virtio::feature::version_1 | 1 << 9) {
    made = 0;
    std::memset(dma.ram.host(Gpa{kTable}), 0, 0x30000);
    for (const u8 status : {1, 3}) device->write_status(status);
    for (u32 half = 0; half < 2; half++) {
      device->driver_select() = half;
      device->write_driver_features(static_cast<u32>(features >> 32 * half));
    }
    device->write_status(11);
    ASSERT_EQ(device->status(), 11);
    device->queue_select() = 0;
    for (unsigned half = 0; half < 64; half += 32) {
      device->write_place(&devices::virtio::RingPlace::descriptors, half, half ? 0 : kTable);
      device->write_place(&devices::virtio::RingPlace::driver, half, half ? 0 : kDriver);
      device->write_place(&devices::virtio::RingPlace::device, half, half ? 0 : kDevice);
    }
    device->enable();
    device->write_status(15);
  }
  // Eight bytes for the device, eight from it, and a byte of status.
  void request(u64 word) {
    const u64 at = kRequest + 0x100 * u64{made};
    put(at, word);
    put(at + 0x20, u64{0});
    put(at + 0x40, u8{0xff});
    const u16 first = static_cast<u16>(3 * made);
    put(kTable + 16 * u64{first}, Descriptor{Gpa{at}, 8, 1, static_cast<u16>(first + 1)});
    put(kTable + 16 * (first + 1u), Descriptor{Gpa{at + 0x20}, 8, 3, static_cast<u16>(first + 2)});
    put(kTable + 16 * (first + 2u), Descriptor{Gpa{at + 0x40}, 1, 2, 0});
    put(kDriver + 4 + 2 * u64{made}, first);
    devices::virtio::store_release(dma.ram.host(Gpa{kDriver + 2}), ++made);
    device->notify(0);
  }
  u64 answer(unsigned n) { return get<u64>(kRequest + 0x100 * n + 0x20); }
  u8 status_of(unsigned n) { return get<u8>(kRequest + 0x100 * n + 0x40); }
  u16 used() { return devices::virtio::load_acquire(dma.ram.host(Gpa{kDevice + 2})); }
  void await_used(u16 n) {
    while (used() != n) std::this_thread::yield();
  }
  std::string await_complaint() {
    for (;; std::this_thread::yield()) {
      std::lock_guard guard{complaining};
      if (!complaints.empty()) return complaints[0];
    }
  }
  void doubles() {
    back_end.handle = [](unsigned, const VhostBackEnd::Chain& chain) {
      u64 word = 0;
      std::memcpy(&word, chain.read().data(), sizeof word);
      word *= 2;
      std::array<u8, 9> bytes{};
      std::memcpy(bytes.data(), &word, sizeof word);
      return std::optional{chain.write(bytes)};
    };
  }
};

TEST_F(DeviceTest, RequestsGoThereAndBack) {
  doubles();
  make(disk_kind(1));
  drive();
  for (unsigned i = 0; i < 60; i++) request(i);
  await_used(60);
  for (unsigned i = 0; i < 60; i++) {
    EXPECT_EQ(answer(i), 2 * i);
    EXPECT_EQ(status_of(i), 0);
  }
  EXPECT_EQ(back_end.acked_features, back_end.features) << "all of them were wanted";
}

TEST_F(DeviceTest, ABackEndWithoutExtrasWillDo) {
  doubles();
  back_end.protocol = 0;
  back_end.features = devices::virtio::feature::version_1;
  make(net_kind({}), false);
  drive(devices::virtio::feature::version_1);
  for (unsigned i = 0; i < 3; i++) request(i + 1);
  await_used(3);
  EXPECT_EQ(answer(2), 6u);
}

// Engines forget what was overwritten before the guest is told.
TEST_F(DeviceTest, WhatWasWrittenIsToldBeforeTheUsedIndexMoves) {
  doubles();
  make(disk_kind(1));
  std::atomic<unsigned> early{0};
  u16 before = 0;
  dma.seen = [&](Gpa at) {
    if (at.raw < kRequest) return;
    if (used() != before || answer(before) == 0) early++;
    if (at.raw % 0x100 == 0x40) before++;
  };
  drive();
  for (unsigned i = 0; i < 20; i++) {
    request(i + 1);
    await_used(static_cast<u16>(i + 1));
  }
  EXPECT_EQ(early, 0u);
  EXPECT_EQ(before, 20u);
}

TEST_F(DeviceTest, TheConfigurationIsTheBackEnds) {
  back_end.config[0] = 77;
  make(disk_kind(3));
  std::array<u8, 70> bytes{};
  device->read_config(0, bytes);
  EXPECT_EQ(bytes[0], 77);
  EXPECT_EQ(bytes[34], 3) << "how many queues is ours to say";
  EXPECT_EQ(bytes[60], 0);
}

TEST_F(DeviceTest, AResetStopsItAndItStartsAgain) {
  doubles();
  make(disk_kind(1));
  for (unsigned round = 0; round < 5; round++) {
    drive();
    for (unsigned i = 0; i < 10; i++) request(i);
    device->write_status(0);
    while (device->status() != 0) std::this_thread::yield();
  }
  drive();
  request(21);
  await_used(1);
  EXPECT_EQ(answer(0), 42u);
  EXPECT_TRUE(complaints.empty());
}

TEST_F(DeviceTest, AMachineThatStartsOverShowsItsNewMemory) {
  doubles();
  make(disk_kind(1));
  drive();
  request(1);
  await_used(1);
  end();
  power_on();
  drive();
  request(4);
  await_used(1);
  EXPECT_EQ(answer(0), 8u);
}

// Buffers that wait for what comes do not keep a reset waiting.
TEST_F(DeviceTest, WhatIsKeptIsDroppedOnceTheRingHasStopped) {
  back_end.handle = [](unsigned, const VhostBackEnd::Chain&) { return std::optional<u32>{}; };
  make(net_kind({}), false);
  drive(devices::virtio::feature::version_1);
  request(1);
  while (back_end.requests == 0) std::this_thread::yield();
  device->write_status(0);
  while (device->status() != 0) std::this_thread::yield();
  EXPECT_EQ(back_end.stops, 2u);
}

// The guest gets I/O errors for what is under way and for what comes, and the user one line.
TEST_F(DeviceTest, ABackEndThatGoesIsErrors) {
  back_end.handle = [](unsigned, const VhostBackEnd::Chain&) { return std::optional<u32>{}; };
  make(disk_kind(1));
  drive();
  request(1);
  while (back_end.requests == 0) std::this_thread::yield();
  back_end.end();
  await_used(1);
  EXPECT_EQ(status_of(0), 1);
  request(2);
  await_used(2);
  EXPECT_EQ(status_of(1), 1);
  EXPECT_EQ(await_complaint(),
            "--disk vhost-user=x: it has ended: the guest gets I/O errors from now on; start both again");
  device->write_status(0);
  EXPECT_EQ(device->status(), 0) << "nothing is under way";
  drive();
  request(3);
  await_used(1);
  EXPECT_EQ(status_of(0), 1);
}

TEST_F(DeviceTest, AShareWithoutABackEndAnswersInItsOwnProtocol) {
  back_end.handle = [](unsigned, const VhostBackEnd::Chain&) { return std::optional<u32>{}; };
  make(share_kind("tag"), false);
  std::array<u8, 40> config{};
  device->read_config(0, config);
  EXPECT_STREQ(reinterpret_cast<const char*>(config.data()), "tag");
  EXPECT_EQ(config[36], 1);
  Request request;
  ASSERT_TRUE(request.add(dma, Gpa{kRequest}, 40, false));
  ASSERT_TRUE(request.add(dma, Gpa{kRequest + 0x100}, 80, true));
  put(kRequest + 8, u64{4711});
  EXPECT_EQ(share_kind("tag")->fail(request), 16u);
  EXPECT_EQ(get<u32>(kRequest + 0x100), 16u);
  EXPECT_EQ(get<i32>(kRequest + 0x104), -EIO);
  EXPECT_EQ(get<u64>(kRequest + 0x108), 4711u);
}

// Whatever it writes into the ring, the device ends and the monitor does not.
TEST_F(DeviceTest, ABackEndThatLiesInTheRingIsCutOff) {
  struct Lie {
    u32 id;
    u16 index;
  };
  for (const Lie lie : {Lie{0xffffffff, 1}, Lie{255, 1}, Lie{0, 2}, Lie{0, 0xffff}, Lie{256, 1}}) {
    complaints.clear();
    back_end.~VhostBackEnd();
    new (&back_end) VhostBackEnd;
    back_end.instead_of_giving = [lie](std::byte* used, u16, u16) {
      const devices::virtio::UsedElement element{lie.id, 8};
      std::memcpy(used + 4, &element, sizeof element);
      devices::virtio::store_release(used + 2, lie.index);
    };
    make(disk_kind(1));
    drive();
    request(1);
    await_used(1);
    EXPECT_EQ(status_of(0), 1);
    EXPECT_THAT(await_complaint(), HasSubstr("means nothing"));
    end();
  }
}

// A silent one holds the reset up no longer than is its patience: the VM's end cuts that short here.
TEST_F(DeviceTest, ABackEndThatDoesNotStopIsCutOff) {
  back_end.handle = [](unsigned, const VhostBackEnd::Chain&) { return std::optional<u32>{}; };
  back_end.lies[Command::get_vring_base] = {};
  make(net_kind({}), false);
  drive(devices::virtio::feature::version_1);
  request(1);
  while (back_end.requests == 0) std::this_thread::yield();
  device->write_status(0);
  end();
  EXPECT_EQ(device->status(), 0);
}

TEST_F(DeviceTest, ABackEndThatRefusesItsMemoryIsCutOff) {
  auto no = message(static_cast<u32>(Command::set_mem_table), kVersion | kReply, 8, 8);
  no.back() = 1;
  back_end.lies[Command::set_mem_table] = no;
  make(disk_kind(1));
  drive();
  request(1);
  await_used(1);
  EXPECT_EQ(status_of(0), 1);
  EXPECT_THAT(await_complaint(), HasSubstr("it refuses SET_MEM_TABLE"));
}

// -- The first words.

TEST_F(DeviceTest, ABackEndThatIsStartedAgainIsJoined) {
  VhostBackEnd second, other;
  const std::string path = "/tmp/trapline-again-" + std::to_string(::getpid());
  unsigned tries = 0;
  again = [&]() -> std::unique_ptr<Peer> {
    if (tries++ == 0) return nullptr;          // nobody listens yet
    auto& next = tries == 2 ? other : second;  // the first is of another size
    next.serve(path);
    auto peer = open_peer(path, VmError::About::disk_vhost, {true, kDiskConfig});
    ::unlink(path.c_str());
    return peer ? std::move(*peer) : nullptr;
  };
  other.config[3] = 9;
  doubles();
  second.handle = back_end.handle;
  make(disk_kind(1));
  drive();
  request(20);
  await_used(1);
  back_end.end();
  EXPECT_THAT(await_complaint(), HasSubstr("I/O errors until it is started again"));
  request(21);
  await_used(2);
  EXPECT_EQ(status_of(1), 1);
  for (std::size_t said = 0; said < 2; std::this_thread::yield()) {
    std::lock_guard guard{complaining};
    said = complaints.size();
  }
  EXPECT_THAT(complaints[1], HasSubstr("it is back"));
  // As soon as its rings are up: until then there are errors.
  for (u16 n = 3; n < 60; n++) {
    request(22);
    await_used(n);
    if (status_of(n - 1u) == 0) break;
  }
  EXPECT_EQ(status_of(made - 1u), 0);
  EXPECT_EQ(answer(made - 1u), 44u);
  EXPECT_EQ(tries, 3u);
}

struct PeerTest : testing::Test {
  std::string path = "/tmp/trapline-vhost-" + std::to_string(::getpid());
  VhostBackEnd back_end;
  ~PeerTest() override {
    back_end.end();
    ::unlink(path.c_str());
  }
  std::string wrong() {
    back_end.serve(path);
    auto peer = open_peer(path, VmError::About::disk_vhost, {true, kDiskConfig});
    return peer ? "" : peer.error().said;
  }
};

TEST_F(PeerTest, IsWhatItSays) {
  back_end.config[3] = 9;
  back_end.serve(path);
  auto peer = open_peer(path, VmError::About::disk_vhost, {true, kDiskConfig});
  ASSERT_TRUE(peer) << peer.error().said;
  EXPECT_EQ((*peer)->queues, 4u);
  EXPECT_EQ((*peer)->config, back_end.config);
  EXPECT_EQ((*peer)->what, "--disk vhost-user=" + path);
}

TEST_F(PeerTest, MustKnowVirtio1) {
  back_end.features &= ~devices::virtio::feature::version_1;
  EXPECT_THAT(wrong(), HasSubstr("it knows no virtio 1.0"));
}

TEST_F(PeerTest, MustSayHowLargeItIs) {
  back_end.protocol &= ~protocol_feature::config;
  EXPECT_THAT(wrong(), HasSubstr("GET_CONFIG"));
}

TEST_F(PeerTest, MustHaveAQueue) {
  back_end.queues = 0;
  EXPECT_THAT(wrong(), HasSubstr("no queue"));
}

TEST_F(PeerTest, MustBeThere) {
  const auto peer = open_peer(path, VmError::About::share_vhost, {});
  ASSERT_FALSE(peer);
  EXPECT_EQ(peer.error().about, VmError::About::share_vhost);
  EXPECT_EQ(peer.error().value, path);
  EXPECT_EQ(peer.error().error, ENOENT);
}

}  // namespace
}  // namespace trapline::monitor::vhost
