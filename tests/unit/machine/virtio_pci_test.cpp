// The PCI transport: what Linux's virtio_pci_modern does, MSI-X, INTx, the access window; and its state.
#include "machine/virtio_pci.h"

#include <gtest/gtest.h>

#include "devices/board_ports.h"
#include "devices/virtio/rng.h"
#include "support/state_suite.h"
#include "support/virtio_driver.h"
#include "unit/devices/fakes.h"

namespace trapline::machine {
namespace {

using test::DriverRing;
using test::FakeDma;
using test::Random;
using test::SplitDriver;
namespace virtio = devices::virtio;
namespace status = virtio::status;

constexpr u64 kData = 0x50000, kBar = 0xc0000000, kMsixTable = 0xc0004000;

struct Messages final : devices::MsiSink {
  void msi(Gpa address, u32 data) override { sent.emplace_back(address.raw, data); }
  std::vector<std::pair<u64, u32>> sent;
};

// Serves at once, and has the transport interrupt.
struct InlineHost final : virtio::Host {
  void interrupt(virtio::Device& device, unsigned queue) override {
    queue == kConfig ? device.transport().config_changed() : device.transport().interrupt(queue);
  }
  void rung(virtio::Device& device, unsigned queue) override { device.backend().serve(queue); }
};

struct Rig {
  FakeDma dma;
  InlineHost host;
  Messages messages;
  devices::FakeLine inta;
  virtio::Device device{std::make_unique<virtio::Rng>([](std::span<std::byte> out) {
                          std::fill(out.begin(), out.end(), std::byte{0x5a});
                          return out.size();
                        }),
                        dma, host};
  devices::ResetControl reset_control{[] {}};
  PciBus bus{reset_control};
  VirtioPci* pci = nullptr;

  Rig() {
    auto function = std::make_unique<VirtioPci>(device, messages, inta);
    pci = function.get();
    bus.plug(1, std::move(function));
    bus.place_memory(Gpa{kBar}, Gpa{kBar + MiB});
  }
  u32 config(unsigned offset, unsigned size = 4) {
    bus.write(0, 4, 1u << 31 | 1 << 11 | (offset & 0xfc));
    return static_cast<u32>(bus.read(4 + (offset & 3), size));
  }
  void config(unsigned offset, unsigned size, u32 value) {
    bus.write(0, 4, 1u << 31 | 1 << 11 | (offset & 0xfc));
    bus.write(4 + (offset & 3), size, value);
  }
  u64 get(u64 at, unsigned size) {
    const auto hit = bus.find_memory(Gpa{at}, size);
    return hit ? hit->target->read(hit->offset, size) : ~u64{0};
  }
  void put(u64 at, unsigned size, u64 value) {
    if (const auto hit = bus.find_memory(Gpa{at}, size)) hit->target->write(hit->offset, size, value);
  }
  u64 common(u64 offset, unsigned size) { return get(kBar + offset, size); }
  void common(u64 offset, unsigned size, u64 value) { put(kBar + offset, size, value); }
  void notify(u16 queue = 0) { put(kBar + VirtioPci::kNotify + 4 * u64{queue}, 2, queue); }
  // The offset of a capability: of a vendor's, the one with this type.
  unsigned capability(u8 id, u8 type = 0) {
    for (unsigned at = config(0x34, 1); at != 0; at = config(at + 1, 1))
      if (config(at, 1) == id && (id != 9 || config(at + 3, 1) == type)) return at;
    return 0;
  }
  void bring_up(u64 features = virtio::feature::version_1) {
    common(0x14, 1, 0);
    common(0x14, 1, status::acknowledge | status::driver);
    for (const u32 half : {0u, 1u}) {
      common(0x08, 4, half);
      common(0x0c, 4, static_cast<u32>(features >> 32 * half));
    }
    common(0x14, 1, status::acknowledge | status::driver | status::features_ok);
    common(0x10, 2, 0);
    common(0x16, 2, 0);
    common(0x18, 2, 8);
    common(0x1a, 2, 1);
    common(0x20, 4, DriverRing::kTable);
    common(0x24, 4, 0);
    common(0x28, 8, DriverRing::kDriver);
    common(0x30, 4, DriverRing::kDevice);
    common(0x34, 4, 0);
    common(0x1c, 2, 1);
    common(0x14, 1, status::acknowledge | status::driver | status::features_ok | status::driver_ok);
  }
  void enable_msix() {
    for (u32 vector = 0; vector < 2; vector++) {
      put(kMsixTable + 16 * vector, 4, 0xfee00000);
      put(kMsixTable + 16 * vector + 8, 4, 0x40 + vector);
      put(kMsixTable + 16 * vector + 12, 4, 0);
    }
    config(capability(0x11) + 2, 2, 0x8000);
  }
};

TEST(VirtioPci, IsWhatDriversLookFor) {
  Rig rig;
  EXPECT_EQ(rig.config(0), 0x10441af4u);
  EXPECT_EQ(rig.config(8, 1), 1u);  // revision: no legacy interface
  for (const u8 type : {1, 2, 3, 4, 5}) {
    const unsigned at = rig.capability(9, type);
    ASSERT_NE(at, 0u) << int{type};
    EXPECT_GE(rig.config(at + 2, 1), 16u);
    EXPECT_EQ(rig.config(at + 4, 1), 0u);
  }
  EXPECT_EQ(rig.config(rig.capability(9, 2) + 16), 4u);  // doorbells: 4 bytes each
  const unsigned msix = rig.capability(0x11);
  EXPECT_EQ(rig.config(msix + 2, 2), 1u);  // two vectors
  EXPECT_EQ(rig.config(msix + 4), VirtioPci::kMsixBar);
  EXPECT_EQ(rig.config(msix + 8), 0x800u | VirtioPci::kMsixBar);
  EXPECT_EQ(rig.config(0x3d, 1), 1u);
}

TEST(VirtioPci, FirmwareHasPlacedItAndTheGuestMayMoveIt) {
  Rig rig;
  EXPECT_EQ(rig.config(0x10), kBar);
  EXPECT_EQ(rig.config(0x18), kMsixTable);
  EXPECT_EQ(rig.config(4, 2) & 2, 2u);
  EXPECT_EQ(rig.common(0x12, 2), 1u);
  rig.config(0x10, 4, 0xd0000000);
  EXPECT_EQ(rig.get(kBar + 0x12, 2), ~u64{0});
  EXPECT_EQ(rig.get(0xd0000012, 2), 1u);
}

TEST(VirtioPci, RequestsAreAnsweredByMsix) {
  Rig rig;
  rig.enable_msix();
  rig.bring_up();
  EXPECT_EQ(rig.pci->doorbells(), Gpa{kBar + VirtioPci::kNotify});
  SplitDriver driver{rig.dma, 8};
  driver.add({{kData, 64, true}});
  rig.notify();
  EXPECT_EQ(driver.used(), (test::Done{0, 64}));
  EXPECT_EQ(rig.dma.get<u32>(kData + 60), 0x5a5a5a5au);
  ASSERT_EQ(rig.messages.sent.size(), 1u);
  EXPECT_EQ(rig.messages.sent[0], (std::pair<u64, u32>{0xfee00000, 0x41}));
  EXPECT_FALSE(rig.inta.up);
  EXPECT_EQ(rig.get(kBar + VirtioPci::kIsr, 1), 0u);
}

TEST(VirtioPci, AMaskedVectorIsPendingUntilTheMaskGoes) {
  for (const bool all : {false, true}) {
    Rig rig;
    rig.enable_msix();
    rig.bring_up();
    all ? rig.config(rig.capability(0x11) + 2, 2, 0xc000) : rig.put(kMsixTable + 16 + 12, 4, 1);
    SplitDriver driver{rig.dma, 8};
    driver.add({{kData, 64, true}});
    rig.notify();
    EXPECT_TRUE(rig.messages.sent.empty());
    EXPECT_EQ(rig.get(kMsixTable + 0x800, 4), 2u);
    all ? rig.config(rig.capability(0x11) + 2, 2, 0x8000) : rig.put(kMsixTable + 16 + 12, 4, 0);
    EXPECT_EQ(rig.messages.sent.size(), 1u);
    EXPECT_EQ(rig.get(kMsixTable + 0x800, 4), 0u);
  }
}

TEST(VirtioPci, WithoutMsixTheLineIsUpUntilTheIsrIsRead) {
  Rig rig;
  rig.bring_up();
  SplitDriver driver{rig.dma, 8};
  driver.add({{kData, 64, true}});
  rig.notify();
  EXPECT_TRUE(rig.inta.up);
  EXPECT_EQ(rig.config(6, 2) & 8, 8u);
  rig.config(4, 2, 0x406);  // INTx disable
  EXPECT_FALSE(rig.inta.up);
  EXPECT_EQ(rig.config(6, 2) & 8, 8u);
  rig.config(4, 2, 0x006);
  EXPECT_TRUE(rig.inta.up);
  EXPECT_EQ(rig.get(kBar + VirtioPci::kIsr, 1), 1u);
  EXPECT_FALSE(rig.inta.up);
  EXPECT_EQ(rig.get(kBar + VirtioPci::kIsr, 1), 0u);
}

TEST(VirtioPci, VectorsThatAreNotThereReadBackAsNone) {
  Rig rig;
  rig.common(0x10, 2, 7);
  EXPECT_EQ(rig.common(0x10, 2), 0xffffu);
  rig.common(0x16, 2, 5);  // no such queue
  rig.common(0x1a, 2, 0);
  EXPECT_EQ(rig.common(0x1a, 2), 0xffffu);
  EXPECT_EQ(rig.common(0x18, 2), 0u);
  EXPECT_EQ(rig.common(0x1c, 2), 0u);
}

TEST(VirtioPci, AResetTakesAllButTheBars) {
  Rig rig;
  rig.enable_msix();
  rig.bring_up();
  rig.common(0x14, 1, 0);
  EXPECT_EQ(rig.common(0x14, 1), 0u);
  EXPECT_EQ(rig.pci->doorbells(), Gpa{});
  rig.common(0x16, 2, 0);
  EXPECT_EQ(rig.common(0x1c, 2), 0u);
  EXPECT_EQ(rig.common(0x1a, 2), 0xffffu);
  EXPECT_EQ(rig.config(0x10), kBar);
  SplitDriver driver{rig.dma, 8};
  driver.add({{kData, 64, true}});
  rig.notify();
  EXPECT_EQ(driver.used(), std::nullopt);
}

// A driver whose rings mean nothing learns of it by the status and the configuration's interrupt.
TEST(VirtioPci, AskingForAReset) {
  Rig rig;
  rig.enable_msix();
  rig.bring_up();
  rig.dma.put<u16>(DriverRing::kDriver + 2, 100);
  rig.notify();
  EXPECT_EQ(rig.common(0x14, 1) & status::needs_reset, status::needs_reset);
  ASSERT_EQ(rig.messages.sent.size(), 1u);
  EXPECT_EQ(rig.messages.sent[0].second, 0x40u);
}

TEST(VirtioPci, SleepTakesNothingFromIt) {
  Rig rig;
  const unsigned power = rig.capability(1);
  ASSERT_NE(power, 0u);
  EXPECT_EQ(rig.config(power + 2, 2) & 7, 3u);
  EXPECT_EQ(rig.config(power + 4, 2), 8u) << "D0, and no reset on the way back";
  rig.common(0x14, 1, status::acknowledge);
  rig.config(power + 4, 2, 3);
  EXPECT_EQ(rig.config(power + 4, 2), 11u);
  for (const u32 other : {1u, 2u}) {
    rig.config(power + 4, 2, other);
    EXPECT_EQ(rig.config(power + 4, 2), 11u) << "there is no D" << other;
  }
  rig.config(power + 4, 2, 0);
  EXPECT_EQ(rig.config(power + 4, 2), 8u);
  EXPECT_EQ(rig.common(0x14, 1), status::acknowledge);
  rig.config(power + 4, 2, 3);
  rig.bus.reset();
  EXPECT_EQ(rig.config(power + 4, 2), 8u);
}

TEST(VirtioPci, TheWindowInConfigurationSpace) {
  Rig rig;
  const unsigned window = rig.capability(9, 5);
  rig.config(window + 4, 1, 0);
  rig.config(window + 8, 4, 0x12);
  rig.config(window + 12, 4, 2);
  EXPECT_EQ(rig.config(window + 16) & 0xffff, 1u);
  rig.config(window + 8, 4, 0x14);
  rig.config(window + 12, 4, 1);
  rig.config(window + 16, 1, status::acknowledge);
  EXPECT_EQ(rig.common(0x14, 1), status::acknowledge);
  // Windows that cannot be do nothing.
  for (const u32 length : {0u, 3u, 8u, ~0u}) {
    rig.config(window + 12, 4, length);
    rig.config(window + 16, 4, 0);
    EXPECT_EQ(rig.common(0x14, 1), status::acknowledge);
  }
  rig.config(window + 12, 4, 4);
  for (const u32 offset : {u32{VirtioPci::kBarBytes}, ~0u, 0x15u}) {
    rig.config(window + 8, 4, offset);
    rig.config(window + 16, 4, 0);
    EXPECT_EQ(rig.common(0x14, 1), status::acknowledge);
  }
  rig.config(window + 4, 1, 5);
  rig.config(window + 8, 4, 0x14);
  rig.config(window + 16, 4, 0);
  EXPECT_EQ(rig.common(0x14, 1), status::acknowledge);
}

TEST(PciPlaces, WhatDoesNotFitIsNotDecoded) {
  Rig rig;
  rig.bus.reset();
  rig.bus.place_memory(Gpa{kBar}, Gpa{kBar + 0x4000});
  EXPECT_EQ(rig.config(0x10), kBar);
  EXPECT_EQ(rig.config(0x18), 0u);
}

// -- State.

struct VirtioPciRig : Rig {
  VirtioPci& subject() { return *pci; }
  void environment(const VirtioPciRig& other) {
    constexpr u64 kFrom = DriverRing::kTable, kTo = kData + 0x1000;
    std::memcpy(dma.ram.host(Gpa{kFrom}), other.dma.ram.host(Gpa{kFrom}), kTo - kFrom);
    messages.sent = other.messages.sent;
    inta = other.inta;
    bus.write(0, 4, 1u << 31 | 1 << 11);
  }
  auto act(Random& random) {
    u64 result = 0;
    const u64 what = random() % 12, value = random() >> random() % 64;
    const unsigned size = 1u << random() % 4;
    switch (what) {
      case 0:
        bring_up(random() % 2 ? virtio::feature::version_1 : virtio::feature::of_rings);
        break;
      case 1:
        enable_msix();
        break;
      case 2:
        put(kMsixTable + random() % 40, size, value);
        break;
      case 3:
        result = get(kBar + VirtioPci::kIsr, 1);
        break;
      case 4:
        common(random() % 0x40, size, value);
        break;
      case 5:
        config(static_cast<unsigned>(random() % 256 & ~u64{3}), 4, static_cast<u32>(value));
        config(0x10, 4, kBar);
        config(0x18, 4, kMsixTable);
        config(4, 1, static_cast<u32>(random() % 8 | 2));
        break;
      case 6:
      case 7:
        result = common(random() % 0x40, size) ^ config(static_cast<unsigned>(random() % 256 & ~u64{3}));
        break;
      default:  // a driver, more or less
        dma.put(DriverRing::kTable + 16 * (random() % 8),
                virtio::Descriptor{Gpa{kData + random() % 64}, static_cast<u32>(random() % 64),
                                   static_cast<u16>(random() % 4), static_cast<u16>(random() % 8)});
        dma.put<u16>(DriverRing::kDriver + 4 + 2 * (random() % 8), static_cast<u16>(random() % 8));
        dma.put<u16>(DriverRing::kDriver + 2,
                     static_cast<u16>(dma.get<u16>(DriverRing::kDriver + 2) + (random() % 3 ? 1 : 0)));
        notify();
    }
    return std::tuple{result, messages.sent.size(), inta.up, dma.get<u32>(DriverRing::kDevice)};
  }
};

struct VirtioState : test::StateIsWhole {};
TEST_P(VirtioState, AtRandomPoints) {
  for (u64 seed = 1; seed <= 12; seed++) GetParam().check(seed);
}
INSTANTIATE_TEST_SUITE_P(Machine, VirtioState,
                         testing::Values(test::StateCase{"rng", test::state_is_whole<VirtioPciRig>}), test::name_of);

}  // namespace
}  // namespace trapline::machine
