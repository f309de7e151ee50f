// The chipset as a whole, and the PCI bus in it, saved and restored.
#include "support/state_suite.h"

#include "machine/chipset.h"
#include "machine/chipset_state.h"
#include "machine/i440fx.h"
#include "support/virtio_driver.h"
#include "unit/devices/fakes.h"

namespace trapline::machine {
namespace {

using test::Random;

struct Seen {
  u64 calls = 0;
  bool intr = false;
};

struct Sinks final : InterruptSink, PowerSink, SerialBackend {
  void called(u64 with) { seen.calls = seen.calls * 31 + with + 1; }
  void msi(Gpa address, u32 data) override { called(address.raw ^ data); }
  void extint(bool up) override { seen.intr = up; }
  void nmi() override { called(1); }
  void power_off() override { called(2); }
  void reset() override { called(3); }
  void debug_exit(u32 value) override { called(value); }
  void write(u8 byte) override { called(byte); }
  Seen seen;
};

struct ChipsetRig {
  Config config;
  devices::FakeTime time;
  Sinks sinks;
  Chipset chipset{ChipsetParts{config, time, sinks, sinks, sinks}};

  Chipset& subject() { return chipset; }
  void environment(const ChipsetRig& other) { time = other.time, sinks.seen = other.sinks.seen; }

  auto act(Random& random) {
    static constexpr u16 kPorts[] = {0x20,  0x21,  0xa0,  0xa1,  0x4d0, 0x40,  0x42,  0x43,  0x60,  0x61,
                                     0x64,  0x70,  0x71,  0x80,  0x92,  0xcf8, 0xcfc, 0xf0,  0x3d4, 0x3d5,
                                     0x3f8, 0x3f9, 0x3fa, 0x3fc, 0x510, 0x511, 0x600, 0x602, 0x604, 0x608};
    const u16 port = kPorts[random() % std::size(kPorts)];
    const unsigned size = 1u << random() % 3;
    u64 result = 0;
    switch (random() % 6) {
      case 0:
        time.ns += random() % (u64{1} << (10 + random() % 34));
        if (chipset.deadline_ns() <= time.ns) chipset.tick();
        break;
      case 1:
        chipset.mmio_write(map::ioapic, 4, 0x10 + random() % 0x30);
        chipset.mmio_write(map::ioapic.wrapping_add(0x10), 4, random() & 0xff0'0000'0001'ffff);
        break;
      case 2:
        if (sinks.seen.intr) result = chipset.pic_acknowledge();
        chipset.ioapic_eoi(static_cast<u8>(random()));
        break;
      case 3:
        result = chipset.port_read(port, size);
        break;
      default:
        chipset.port_write(port, size, static_cast<u32>(random() >> random() % 64));
    }
    return std::pair{result ^ chipset.deadline_ns(), sinks.seen.calls << 1 | u64{sinks.seen.intr}};
  }
};

// With what a firmware needs, a display and a drive.
struct FirmwareRig : ChipsetRig, devices::CdImage {
  static Config make_config() {
    Config c;
    c.firmware = "bios";
    c.console = ConsoleChoice::vga;
    return c;
  }
  Config fitted = make_config();
  test::FakeDma dma;
  Chipset board{ChipsetParts{fitted, time, sinks, sinks, sinks, {}, &dma, {}, this}};
  u32 blocks() const override { return 10; }
  bool read(u32 block, std::span<u8, devices::kCdBlock> to) override {
    std::fill(to.begin(), to.end(), static_cast<u8>(block));
    return true;
  }
  Chipset& subject() { return board; }
  auto act(Random& random) {
    static constexpr u16 kPorts[] = {0x60,  0x64,  0x1f0, 0x1f1, 0x1f2, 0x1f6, 0x1f7, 0x3f6, 0x3c0, 0x3c2,
                                     0x3c4, 0x3c5, 0x3c9, 0x3d4, 0x3d5, 0x3da, 0xcf8, 0xcfc, 0x510, 0x511};
    const u16 port = kPorts[random() % std::size(kPorts)];
    const unsigned size = 1u << random() % 3;
    const u8 key = 'k';
    u64 result = 0;
    switch (random() % 8) {
      case 0:
        result = board.console_input(&key, random() % 2);
        break;
      case 1:
        board.port_write(0xcf8, 4, static_cast<u32>(0x80000000 | (random() % 32) << 11 | (random() & 0xfc)));
        break;
      case 2:
      case 3:
      case 4:
        result = board.port_read(port, size);
        break;
      default:
        board.port_write(port, size, static_cast<u32>(random() >> random() % 64));
    }
    return std::pair{result ^ board.deadline_ns(), sinks.seen.calls << 1 | u64{sinks.seen.intr}};
  }
};

struct PciRig {
  devices::ResetControl reset_control{[] {}};
  PciBus bus{reset_control};
  PciRig() { bus.plug(0, make_host_bridge(false)); }
  PciBus& subject() { return bus; }
  void environment(const PciRig& other) { reset_control.restore(other.reset_control.save()); }
  u64 act(Random& random) {
    if (random() % 4 == 0) bus.write(0, 4, random() % 2 ? 0x80000000 | (random() & 0xfc) : random());
    const u64 offset = random() % 8;
    if (random() % 2) bus.write(offset, 1u << random() % 3, random());
    return bus.read(offset, 1u << random() % 3);
  }
};

class MachineState : public test::StateIsWhole {};

TEST_P(MachineState, SavedAndRestored) {
  for (u64 seed = 1; seed <= 20; seed++) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    GetParam().check(seed);
    if (HasFatalFailure()) return;
  }
}

INSTANTIATE_TEST_SUITE_P(Machine, MachineState,
                         testing::Values(test::StateCase{"chipset", test::state_is_whole<ChipsetRig>},
                                         test::StateCase{"firmware", test::state_is_whole<FirmwareRig>},
                                         test::StateCase{"pci", test::state_is_whole<PciRig>}),
                         test::name_of);

}  // namespace
}  // namespace trapline::machine
