// Random port, memory, serial and timer sequences on the whole chipset, as a hostile core could send them.
#include <cstring>

#include "base/guest_memory.h"
#include "base/invariant.h"
#include "machine/chipset.h"

using namespace trapline;
using namespace trapline::machine;

namespace {

struct Time final : devices::TimeSource {
  u64 now = 0;
  u64 now_ns() const override { return now; }
  u64 wall_clock_seconds() const override { return 1'700'000'000 + now / 1'000'000'000; }
};
struct Sinks final : InterruptSink, PowerSink, SerialBackend {
  void msi(Gpa, u32) override {}
  void extint(bool) override {}
  void nmi() override {}
  void power_off() override {}
  void reset() override {}
  void debug_exit(u32) override {}
  void write(u8) override {}
};

struct Dma final : devices::virtio::Dma {
  GuestMemory ram = std::move(*GuestMemory::anonymous(2 * MiB));
  std::optional<std::span<std::byte>> bytes(Gpa at, u64 length) const override { return ram.bytes(at, length); }
  void written(Gpa at, u64 length) override { INVARIANT(ram.bytes(at, length), "{}+{:#x}", at, length); }
  void give_back(Gpa, u64) override {}  // a balloon alone does
};
struct Cd final : devices::CdImage {
  u32 blocks() const override { return 300; }
  bool read(u32 block, std::span<u8, devices::kCdBlock> to) override {
    INVARIANT(block < blocks(), "block {}", block);
    to[0] = static_cast<u8>(block);
    return block != 77;
  }
};

// Ports with a device behind them are asked for more often than chance would.
constexpr u16 kPorts[] = {0x20,  0x21,  0xa0,  0xa1,  0x40,  0x41,  0x42,  0x43,   0x60,  0x61,  0x64,  0x70,
                          0x71,  0x80,  0x92,  0xf4,  0x4d0, 0x4d1, 0x3f8, 0x3f9,  0x3fa, 0x3fb, 0x3fc, 0x3fd,
                          0x510, 0x511, 0x514, 0x518, 0x600, 0x604, 0x608, 0xcf8,  0xcf9, 0xcfc, 0x1f0, 0x1f4,
                          0x1f7, 0x3f6, 0x3c0, 0x3c4, 0x3c8, 0x3d4, 0x3da, 0xc000, 0xc004};

struct Step {
  u8 what, place;
  u16 offset;
  u32 value;
};

void run(Chipset& chipset, Time& time, const Step& s) {
  const u16 port = s.place < 128 ? static_cast<u16>(kPorts[s.place % std::size(kPorts)] + (s.offset & 3)) : s.offset;
  const Gpa base = s.place & 1 ? map::ioapic : s.place & 2 ? map::hpet : s.place & 4 ? map::pci_mmio_start : map::lapic;
  const unsigned size = 1u << (s.what >> 4 & 3);
  switch (s.what & 15) {
    case 0:
    case 1:
    case 2:
      chipset.port_write(port, size, s.value);
      break;
    case 3:
    case 4:
      chipset.port_read(port, size);
      break;
    case 5:
    case 6:
      chipset.mmio_write(base.wrapping_add(s.offset & 0xfff), size, s.value);
      break;
    case 7:
      chipset.mmio_read(base.wrapping_add(s.offset & 0xfff), size);
      break;
    case 8:
      chipset.pic_acknowledge();
      break;
    case 9:
      chipset.ioapic_eoi(static_cast<u8>(s.value));
      break;
    case 10: {
      const std::size_t room = chipset.console_room(),
                        taken = chipset.console_input(reinterpret_cast<const u8*>(&s.value), 4);
      INVARIANT(taken <= 4 && taken <= room, "took {} with room for {}", taken, room);
      break;
    }
    case 11:
      chipset.reset();
      break;
    case 12:
      chipset.press_power_button();
      break;
    case 13:
      chipset.port_read(port, s.value);
      break;
    default:
      // To the next deadline when it is near, else by the step's own amount; a deadline in the past must not stay
      // there.
      time.now += s.what & 16 ? s.value : u64{s.value} << 10;
      for (unsigned i = 0; i < 100 && chipset.deadline_ns() <= time.now; i++) chipset.tick();
      break;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
  Config config;
  config.memory = 64 * MiB;
  config.cpus = 2;
  Time time;
  Sinks sinks;
  // A board with all that a firmware needs, or one without.
  static Dma dma;
  Cd cd;
  const bool firmware = size != 0 && data[size - 1] & 1;
  if (firmware) config.firmware = "bios", config.console = ConsoleChoice::vga;
  Chipset chipset({config, time, sinks, sinks, sinks, {}, &dma, {}, firmware ? &cd : nullptr});
  if (firmware) {  // the bus master at C000
    chipset.port_write(0xcf8, 4, 0x80000000 | 29u << 11 | 0x20);
    chipset.port_write(0xcfc, 4, 0xc000);
    chipset.port_write(0xcf8, 4, 0x80000000 | 29u << 11 | 4);
    chipset.port_write(0xcfc, 2, 5);
  }
  for (; size >= sizeof(Step); data += sizeof(Step), size -= sizeof(Step)) {
    Step step;
    std::memcpy(&step, data, sizeof step);
    run(chipset, time, step);
  }
  return 0;
}
