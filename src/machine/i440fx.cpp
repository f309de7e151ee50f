#include "machine/i440fx.h"

#include <span>
#include <vector>

#include "devices/board_map.h"

namespace trapline::machine {

namespace {

// A function without memory or ports of its own: some registers with a value at RESET, some of them to be written.
class Registers final : public PciDevice {
 public:
  struct Register {
    u8 at, value, writable;  // the last: a mask
  };
  Registers(const Identity& identity, std::span<const Register> registers)
      : PciDevice{identity}, registers_{registers.begin(), registers.end()} {
    for (const Register& r : registers_) make_writable(r.at, 1, r.writable);
    put_values();
  }
  void add_ports(unsigned bar, u64 count, devices::Device& target) { add_bar(bar, BarKind::io, count, target); }
  void reset() override {
    PciDevice::reset();
    put_values();
  }

 private:
  void put_values() {
    for (const Register& r : registers_) config_[r.at] = r.value;
  }
  std::vector<Register> registers_;
};

}  // namespace

std::unique_ptr<PciDevice> make_host_bridge(bool firmware) {
  PciDevice::Identity id{.vendor = 0x8086, .device = 0x1237, .class_code = 0x060000, .revision = 2};
  if (!firmware) return std::make_unique<PciDevice>(id);
  id.subsystem_vendor = 0x1af4, id.subsystem = 0x1100;
  // PAM (82441FX datasheet, 3.2.18): nothing from RAM, so that firmware copies all of itself there. SMRAM (3.2.22): closed.
  static constexpr Registers::Register kRegisters[] = {
      {0x59, 0x00, 0x33}, {0x5a, 0x00, 0x33}, {0x5b, 0x00, 0x33}, {0x5c, 0x00, 0x33},
      {0x5d, 0x00, 0x33}, {0x5e, 0x00, 0x33}, {0x5f, 0x00, 0x33}, {0x72, 0x02, 0x78},
  };
  return std::make_unique<Registers>(id, kRegisters);
}

std::unique_ptr<PciDevice> make_isa_bridge() {
  // PIRQRC[A:D]: routed nowhere (82371SB datasheet, 2.2.9). INTx goes to the IOAPIC alone.
  static constexpr Registers::Register kRegisters[] = {
      {0x60, 0x80, 0x8f}, {0x61, 0x80, 0x8f}, {0x62, 0x80, 0x8f}, {0x63, 0x80, 0x8f}};
  return std::make_unique<Registers>(PciDevice::Identity{.vendor = 0x8086, .device = 0x7000, .class_code = 0x060100},
                                     kRegisters);
}

std::unique_ptr<PciDevice> make_power_management() {
  // PMBASE, APMC_EN in DEVACTB (so that firmware sets up no SMM), PMREGMISC (82371AB datasheet, 7.1). No SMBus.
  static constexpr u8 kLow = devices::map::acpi_pm & 0xc0, kHigh = devices::map::acpi_pm >> 8;
  static constexpr Registers::Register kRegisters[] = {
      {0x40, kLow | 1, 0xc0}, {0x41, kHigh, 0xff}, {0x5b, 0x02, 0x02}, {0x80, 0x01, 0x01}};
  return std::make_unique<Registers>(
      PciDevice::Identity{.vendor = 0x8086, .device = 0x7113, .class_code = 0x068000, .revision = 3}, kRegisters);
}

std::unique_ptr<PciDevice> make_ide(devices::Device& bus_master) {
  // IDETIM (82371SB datasheet, 2.3.9): bit 15 decodes a channel's ports.
  static constexpr Registers::Register kRegisters[] = {{0x40, 0x00, 0xff}, {0x41, 0x80, 0xff}};
  auto ide = std::make_unique<Registers>(
      PciDevice::Identity{.vendor = 0x8086, .device = 0x7010, .class_code = 0x010180}, kRegisters);
  ide->add_ports(4, 16, bus_master);
  return ide;
}

}  // namespace trapline::machine
