// All that the chipset remembers: every device and the wires between them.
#pragma once

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
#include "machine/pci.h"
#include "machine/virtio_mmio.h"
#include "machine/virtio_pci.h"

namespace trapline::machine {

struct ChipsetState {
  u32 wires = 0;  // bit per GSI: its level
  u32 inta = 0;   // bit per PCI slot: its INTA
  devices::IoApic::State ioapic;
  devices::PicPair::State pic;
  devices::Pit8254::State pit;
  devices::Rtc::State rtc;
  devices::Uart16550::State com1;
  devices::I8042::State i8042;
  devices::SystemControlA::State port92;
  devices::ResetControl::State reset_control;
  devices::PostPorts::State post;
  devices::CrtController::State crtc;
  devices::AcpiPm::State pm;
  devices::FwCfg::State fw_cfg;
  PciBus::State pci;
  devices::VgaText::State vga;  // as at RESET in a machine without, like the next
  devices::IdeChannel::State ide;
  std::vector<VirtioPci::State> virtio;
  std::vector<VirtioMmio::State> virtio_mmio;

  bool operator==(const ChipsetState&) const = default;
};

}  // namespace trapline::machine
