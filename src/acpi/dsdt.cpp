#include "acpi/dsdt.h"

#include <fmt/format.h>

#include "base/invariant.h"
#include "devices/acpi_pm.h"
#include "devices/board_map.h"

namespace trapline::acpi {

namespace {

namespace map = devices::map;

using aml::Bytes;

// INTx of slots 1..31, swizzled over the IOAPIC pins 16..23 (PCI wires them to no 8259 input).
Bytes interrupt_routing() {
  std::vector<Bytes> routes;
  for (u32 slot = 1; slot < 32; slot++)
    for (u32 pin = 0; pin < 4; pin++)
      routes.push_back(aml::package({aml::integer(slot << 16 | 0xffff), aml::integer(pin), aml::integer(0),
                                     aml::integer(devices::pci_intx_gsi(slot, pin))}));
  return aml::package(routes);
}

Bytes pci_root(const Machine& machine) {
  const Gpa first = machine.firmware ? map::firmware_pci_start : map::pci_mmio_start;
  const Gpa end = machine.firmware ? map::firmware_pci_end : map::pci_mmio_end;
  const Bytes windows = aml::resources({
      aml::bus_window(0, 0),
      aml::io_window(0, map::pci_config - 1),
      aml::io_port(map::pci_config, 8),
      aml::io_window(map::pci_config + 8, 0xffff),
      aml::memory_window(static_cast<u32>(first.raw), static_cast<u32>(end.raw - 1)),
  });
  return aml::device("PCI0", aml::join({
                                 aml::name("_HID", aml::eisa_id("PNP0A03")),
                                 aml::name("_UID", aml::integer(0)),
                                 aml::name("_BBN", aml::integer(0)),
                                 aml::name("_CRS", windows),
                                 aml::name("_PRT", interrupt_routing()),
                             }));
}

Bytes isa_devices(const Machine& machine) {
  const Bytes com1 =
      aml::device("COM1", aml::join({
                              aml::name("_HID", aml::eisa_id("PNP0501")),
                              aml::name("_UID", aml::integer(1)),
                              aml::name("_CRS", aml::resources({aml::io_port(map::com1, 8), aml::irq(4)})),
                          }));
  const Bytes rtc = aml::device("RTC0", aml::join({
                                            aml::name("_HID", aml::eisa_id("PNP0B00")),
                                            aml::name("_CRS", aml::resources({aml::io_port(0x70, 2), aml::irq(8)})),
                                        }));
  if (!machine.keyboard) return aml::join({com1, rtc});
  const Bytes keyboard = aml::device(
      "KBD0", aml::join({
                  aml::name("_HID", aml::eisa_id("PNP0303")),
                  aml::name("_CRS", aml::resources({aml::io_port(0x60, 1), aml::io_port(0x64, 1), aml::irq(1)})),
              }));
  return aml::join({com1, rtc, keyboard});
}

// machine/virtio_mmio.h: the n-th has the line that PCI slot n + 1 would have.
Bytes virtio_devices(u32 count) {
  Bytes out;
  for (u32 i = 0; i < count; i++) {
    const u32 at = static_cast<u32>(map::virtio_mmio.raw + i * map::virtio_mmio_bytes);
    const Bytes device =
        aml::device(fmt::format("V{:03X}", i),
                    aml::join({aml::name("_HID", aml::string("LNRO0005")), aml::name("_UID", aml::integer(i)),
                               aml::name("_CCA", aml::integer(1)),
                               aml::name("_CRS", aml::resources({aml::memory(at, map::virtio_mmio_bytes),
                                                                 aml::interrupt(devices::pci_intx_gsi(i + 1, 0))}))}));
    out.insert(out.end(), device.begin(), device.end());
  }
  return out;
}

// _UID is what the MADT calls the processor's UID.
Bytes processors(u32 cpus) {
  Bytes out;
  for (u32 i = 0; i < cpus; i++) {
    const Bytes cpu =
        aml::device(fmt::format("C{:03X}", i),
                    aml::join({aml::name("_HID", aml::string("ACPI0007")), aml::name("_UID", aml::integer(i))}));
    out.insert(out.end(), cpu.begin(), cpu.end());
  }
  return out;
}

}  // namespace

aml::Bytes dsdt_body(const Machine& machine) {
  const u32 cpus = machine.cpus;
  INVARIANT(cpus <= 0x1000, "{} processors", cpus);
  const Bytes off = aml::integer(devices::kSleepTypeS5), zero = aml::integer(0);
  return aml::join({
      aml::name("\\_S5_", aml::package({off, off, zero, zero})),
      aml::scope("\\_SB_", aml::join({processors(cpus), pci_root(machine), isa_devices(machine),
                                      virtio_devices(machine.virtio_mmio)})),
  });
}

}  // namespace trapline::acpi
