// Every device of this folder, saved and restored.
#include "support/state_suite.h"

#include "devices/acpi_pm.h"
#include "devices/board_ports.h"
#include "devices/fw_cfg.h"
#include "devices/i8042.h"
#include "devices/ide.h"
#include "devices/ioapic.h"
#include "devices/pic8259.h"
#include "devices/pit8254.h"
#include "devices/rtc.h"
#include "devices/uart16550.h"
#include "devices/vga_text.h"
#include "support/virtio_driver.h"
#include "unit/devices/fakes.h"

namespace trapline::devices {
namespace {

using test::Random;

struct Surroundings {
  FakeTime time;
  FakeLine line[2];
  u64 calls = 0;  // of what devices call, with what they say

  void called(u64 with = 0) { calls = calls * 31 + with + 1; }
  void environment(const Surroundings& other) { *this = other; }
  u64 seen() const { return calls << 2 | u64{line[0].up} << 1 | u64{line[1].up}; }

  // An access to one of `range` offsets, or time that passes.
  std::pair<u64, u64> access(Device& device, u64 range, Random& random, unsigned widest = 1) {
    const u64 what = random() % 8, offset = random() % range, value = random() >> random() % 64;
    const unsigned size = 1u << random() % widest;
    u64 result = 0;
    if (what == 0) {
      time.ns += random() % (u64{1} << (10 + random() % 36));
      if (device.deadline_ns() <= time.ns) device.tick();
    } else if (what < 4) {
      result = device.read(offset, size);
    } else {
      device.write(offset, size, value);
    }
    return {result ^ device.deadline_ns(), seen()};
  }
};

struct PitRig : Surroundings {
  Pit8254 pit{line[0], time};
  Pit8254& subject() { return pit; }
  void environment(const Surroundings& other) { Surroundings::environment(other); }
  auto act(Random& random) { return random() % 6 ? access(pit, 4, random) : access(pit.control_port(), 1, random); }
};

struct RtcRig : Surroundings {
  Rtc rtc{line[0], time};
  Rtc& subject() { return rtc; }
  auto act(Random& random) {
    if (random() % 2) rtc.write(0, 1, random() % 16);
    return access(rtc, 2, random);
  }
};

struct UartRig : Surroundings {
  Uart16550 uart{line[0], [this](u8 byte) { called(byte); }};
  Uart16550& subject() { return uart; }
  auto act(Random& random) {
    const u8 bytes[3] = {static_cast<u8>(random()), 2, 3};
    if (random() % 4 == 0) called(uart.receive(bytes, random() % 4));
    return access(uart, 8, random);
  }
};

struct PmRig : Surroundings {
  AcpiPm pm{line[0], time, [this] { called(); }};
  AcpiPm& subject() { return pm; }
  auto act(Random& random) {
    if (random() % 16 == 0) pm.press_power_button();
    return access(pm, AcpiPm::kSize, random, 3);
  }
};

struct I8042Rig : Surroundings {
  I8042 controller{line[0], line[1], [this] { called(); }};
  I8042& subject() { return controller; }
  auto act(Random& random) { return access(controller, 5, random); }
};

struct KeyboardRig : Surroundings {
  I8042 controller{line[0], line[1], [this] { called(); }, true};
  I8042& subject() { return controller; }
  auto act(Random& random) {
    constexpr u8 kTyped[] = {'a', 'Z', 0x1b, '[', 'A', '\r', 0xc3};
    const u8 bytes[2] = {kTyped[random() % std::size(kTyped)], kTyped[random() % std::size(kTyped)]};
    if (random() % 4 == 0) called(controller.type(bytes, random() % 3));
    return access(controller, 5, random);
  }
};

struct VgaRig : Surroundings {
  VgaText vga{time};
  VgaText& subject() { return vga; }
  auto act(Random& random) {
    const TextMode m = vga.mode();
    called(m.on ? m.columns ^ m.rows ^ m.start ^ m.cursor : 0);
    return access(vga, VgaText::kPorts, random);
  }
};

struct IdeRig : Surroundings, CdImage {
  test::FakeDma dma;
  IdeChannel ide{line[0], *this, &dma};
  u32 blocks() const override { return 100; }
  bool read(u32 block, std::span<u8, kCdBlock> to) override {
    std::fill(to.begin(), to.end(), static_cast<u8>(block));
    return block != 50;
  }
  IdeChannel& subject() { return ide; }
  void environment(const Surroundings& other) { Surroundings::environment(other); }
  // Bytes of commands that begin to make sense.
  auto act(Random& random) {
    if (random() % 8 == 0) ide.write(7, 1, random() % 2 ? 0xa0 : 0xa1);
    if (random() % 3 == 0) {
      constexpr u8 kPackets[] = {0x00, 0x03, 0x12, 0x25, 0x28, 0x43, 0x5a, 0xa8};
      ide.write(0, 2, kPackets[random() % std::size(kPackets)]);
      for (unsigned i = 0; i < 5; i++) ide.write(0, 2, random() % 3 << 8);
    }
    Device* const part[] = {&ide, &ide.control_port(), &ide.bus_master()};
    return access(*part[random() % 3], 8, random, 3);
  }
};

struct FwCfgRig : Surroundings {
  FwCfg fw;
  FwCfgRig() { fw.add_file("name", {1, 2, 3}); }
  FwCfg& subject() { return fw; }
  auto act(Random& random) {
    constexpr u16 kKeys[] = {FwCfg::signature, FwCfg::id, FwCfg::file_dir, FwCfg::file_first, 0x1234};
    if (random() % 8 == 0) fw.write(0, 2, kKeys[random() % std::size(kKeys)]);
    return access(fw, 2, random);
  }
};

struct PicRig : Surroundings {
  PicPair pics{line[0]};
  PicPair& subject() { return pics; }
  auto act(Random& random) {
    if (random() % 2) pics.set_irq(random() % 16, random() % 2);
    if (line[0].up && random() % 2) called(pics.acknowledge());
    Device* const port[] = {&pics.master(), &pics.slave(), &pics.elcr()};
    return access(*port[random() % 3], 2, random);
  }
};

struct IoApicRig : Surroundings, MsiSink {
  IoApic ioapic{*this, 0x00ff0000};
  void msi(Gpa address, u32 data) override { called(address.raw ^ data); }
  IoApic& subject() { return ioapic; }
  auto act(Random& random) {
    constexpr u64 kOffsets[] = {IoApic::kSelect, IoApic::kWindow, IoApic::kEoi};
    if (random() % 2) ioapic.set_irq(random() % IoApic::kPins, random() % 2);
    if (random() % 2) ioapic.write(IoApic::kSelect, 4, random() % 0x40);
    ioapic.write(kOffsets[random() % 3], 4, random());
    return std::pair{ioapic.read(kOffsets[random() % 3], 4), seen()};
  }
};

template <class T, u64 kRange>
struct PortRig : Surroundings {
  T device = make();
  T make() {
    if constexpr (std::is_default_constructible_v<T>)
      return T{};
    else
      return T{[this] { called(); }};
  }
  T& subject() { return device; }
  auto act(Random& random) { return access(device, kRange, random); }
};

class DeviceState : public test::StateIsWhole {};

TEST_P(DeviceState, SavedAndRestored) {
  for (u64 seed = 1; seed <= 40; seed++) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    GetParam().check(seed);
    if (HasFatalFailure()) return;
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, DeviceState,
                         testing::Values(test::StateCase{"pit", test::state_is_whole<PitRig>},
                                         test::StateCase{"rtc", test::state_is_whole<RtcRig>},
                                         test::StateCase{"uart16550", test::state_is_whole<UartRig>},
                                         test::StateCase{"acpi_pm", test::state_is_whole<PmRig>},
                                         test::StateCase{"i8042", test::state_is_whole<I8042Rig>},
                                         test::StateCase{"keyboard", test::state_is_whole<KeyboardRig>},
                                         test::StateCase{"vga_text", test::state_is_whole<VgaRig>},
                                         test::StateCase{"ide", test::state_is_whole<IdeRig>},
                                         test::StateCase{"fw_cfg", test::state_is_whole<FwCfgRig>},
                                         test::StateCase{"pic", test::state_is_whole<PicRig>},
                                         test::StateCase{"ioapic", test::state_is_whole<IoApicRig>},
                                         test::StateCase{"port92", test::state_is_whole<PortRig<SystemControlA, 1>>},
                                         test::StateCase{"reset_control",
                                                         test::state_is_whole<PortRig<ResetControl, 1>>},
                                         test::StateCase{"post", test::state_is_whole<PortRig<PostPorts, 16>>},
                                         test::StateCase{"crtc", test::state_is_whole<PortRig<CrtController, 2>>}),
                         test::name_of);

}  // namespace
}  // namespace trapline::devices
