// Registers in memory: what Linux's virtio_mmio does, and the device's state.
#include "machine/virtio_mmio.h"

#include <gtest/gtest.h>

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

constexpr u64 kData = 0x50000;

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
  devices::FakeLine line;
  virtio::Device device{std::make_unique<virtio::Rng>([](std::span<std::byte> out) {
                          std::fill(out.begin(), out.end(), std::byte{0x5a});
                          return out.size();
                        }),
                        dma, host};
  VirtioMmio mmio{device, line};

  u32 get(u64 offset) { return static_cast<u32>(mmio.read(offset, 4)); }
  void put(u64 offset, u32 value) { mmio.write(offset, 4, value); }
  void bring_up() {
    put(0x70, 0), put(0x70, 1), put(0x70, 3);
    put(0x24, 0), put(0x20, 0), put(0x24, 1), put(0x20, 1);  // VERSION_1
    put(0x70, 11);
    put(0x30, 0), put(0x38, 8);
    put(0x80, DriverRing::kTable), put(0x84, 0), put(0x90, DriverRing::kDriver), put(0x94, 0);
    put(0xa0, DriverRing::kDevice), put(0xa4, 0), put(0x44, 1);
    put(0x70, 15);
  }

  // -- state_suite.h
  VirtioMmio& subject() { return mmio; }
  void environment(const Rig& other) {
    std::memcpy(dma.ram.host(Gpa{0}), other.dma.ram.host(Gpa{0}), 0x60000);
    line.up = other.line.up;
  }
  std::pair<u32, bool> act(Random& random) {
    static constexpr u64 kRegisters[] = {0x00, 0x04, 0x08, 0x10, 0x14, 0x20, 0x24, 0x30, 0x34, 0x38, 0x44,  0x50,
                                         0x60, 0x64, 0x70, 0x80, 0x84, 0x90, 0xa0, 0xa4, 0xb0, 0xfc, 0x100, 0x104};
    switch (random() % 8) {
      case 0:
        bring_up();
        break;
      case 1:
        dma.put(DriverRing::kTable, virtio::Descriptor{Gpa{kData}, 16, 2, 0});
        dma.put(DriverRing::kDriver + 2, static_cast<u16>(random() % 9));
        put(0x50, 0);
        break;
      case 2:
      case 3:
        put(kRegisters[random() % std::size(kRegisters)], static_cast<u32>(random() >> random() % 64));
        break;
      default:
        break;
    }
    return {get(kRegisters[random() % std::size(kRegisters)]), line.up};
  }
};

TEST(VirtioMmio, SaysWhatItIs) {
  Rig rig;
  EXPECT_EQ(rig.get(0x00), 0x74726976u);
  EXPECT_EQ(rig.get(0x04), 2u);
  EXPECT_EQ(rig.get(0x08), 4u);
  EXPECT_EQ(rig.get(0xb0), ~0u);          // no shared memory
  EXPECT_EQ(rig.mmio.read(0x00, 1), 0u);  // registers are words
  rig.put(0x30, 5);
  EXPECT_EQ(rig.get(0x34), 0u);  // no such queue
  rig.put(0x30, 0x10000);        // nor is this queue 0
  EXPECT_EQ(rig.get(0x34), 0u);
}

TEST(VirtioMmio, ARequestIsAnsweredAndInterruptsUntilItIsAcknowledged) {
  Rig rig;
  rig.put(0x14, 1);
  EXPECT_EQ(rig.get(0x10) & 1, 1u);  // VERSION_1 is offered
  rig.bring_up();
  EXPECT_EQ(rig.get(0x70), 15u);
  EXPECT_EQ(rig.get(0x44), 1u);
  SplitDriver driver{rig.dma, 8};
  driver.add({{kData, 16, true}});
  rig.put(0x50, 0);
  EXPECT_EQ(driver.used()->length, 16u);
  EXPECT_EQ(rig.dma.get<u8>(kData), 0x5a);
  EXPECT_TRUE(rig.line.up);
  EXPECT_EQ(rig.get(0x60), 1u);
  rig.device.config_changed();
  EXPECT_EQ(rig.get(0x60), 3u);
  rig.put(0x64, 1);
  EXPECT_TRUE(rig.line.up);
  rig.put(0x64, 2);
  EXPECT_FALSE(rig.line.up);
  driver.add({{kData, 16, true}});
  rig.put(0x50, 0);
  rig.put(0x50, 99);  // no such queue
  EXPECT_TRUE(rig.line.up);
  rig.put(0x70, 0);
  EXPECT_FALSE(rig.line.up);
  EXPECT_EQ(rig.get(0x44), 0u);
}

TEST(VirtioMmio, IsNamedToKernelsThatLookAtNoTable) {
  EXPECT_EQ(virtio_mmio_words("console=ttyS0", 2), "");
  EXPECT_EQ(virtio_mmio_words("acpi=off console=ttyS0", 2),
            " virtio_mmio.device=512@0xfeb00000:17 virtio_mmio.device=512@0xfeb00200:18");
  EXPECT_EQ(virtio_mmio_words("acpi=off", 0), "");
  EXPECT_EQ(virtio_mmio_words("acpi=off virtio_mmio.device=512@0xfeb00000:17", 2), "") << "the user knows better";
  EXPECT_EQ(virtio_mmio_words("noacpi=off", 2), "");
}

TEST(VirtioMmio, StateIsWhole) {
  for (u64 seed = 1; seed <= 20; seed++) {
    SCOPED_TRACE(seed);
    test::state_is_whole<Rig>(seed);
    if (testing::Test::HasFatalFailure()) return;
  }
}

}  // namespace
}  // namespace trapline::machine
