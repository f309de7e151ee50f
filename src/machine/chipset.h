// The PC's devices, wired together: what answers at every port and device address. Runs in the monitor; every call
// carries values that the sandboxed core chose, so nothing here trusts an argument. The caller holds one lock around
// all calls.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>

#include "base/addr.h"
#include "base/types.h"
#include "devices/atapi.h"
#include "devices/board_map.h"
#include "devices/device.h"
#include "devices/device_page.h"
#include "devices/vga_text.h"
#include "devices/virtio/device.h"
#include "machine/config.h"

namespace trapline::machine {

using devices::DevicePage;
namespace virtio = devices::virtio;

// Where interrupts go. The IOAPIC sends messages as an MSI would (SDM Vol. 3A 10.11); the 8259's INTR is a level to
// vCPU 0's LINT0.
struct InterruptSink {
  virtual ~InterruptSink() = default;
  virtual void msi(Gpa address, u32 data) = 0;
  virtual void extint(bool up) = 0;
  virtual void nmi() = 0;
};

// What the guest asks of the machine itself. Called from within a register access; the VM loop acts after it.
struct PowerSink {
  virtual ~PowerSink() = default;
  virtual void power_off() = 0;
  virtual void reset() = 0;
  virtual void debug_exit(u32 value) = 0;  // isa-debug-exit: exit code (value << 1) | 1
};

// The serial port's other side. write() takes what the guest sends; input arrives by Chipset::console_input.
struct SerialBackend {
  virtual ~SerialBackend() = default;
  virtual void write(u8 byte) = 0;
};

struct ChipsetParts {
  const Config& config;
  devices::TimeSource& time;
  InterruptSink& interrupts;
  PowerSink& power;
  SerialBackend& serial;
  std::span<virtio::Device* const> virtio = {};  // in PCI slots 1, 2, ...; they outlive the chipset
  virtio::Dma* dma = nullptr;                    // for the board's own devices; outlives it too
  std::span<const u8> vga_bios = {};             // with a display
  devices::CdImage* cd = nullptr;                // in a drive; null: there is none
};

struct ChipsetState;  // machine/chipset_state.h

class Chipset {
 public:
  using State = ChipsetState;
  State save() const;
  // Into a chipset of the same configuration. No interrupt is sent: the local APICs' inboxes are state of their own.
  void restore(const State& state);

  explicit Chipset(const ChipsetParts& parts);
  ~Chipset();

  u32 port_read(u16 port, unsigned size);  // size 1, 2, 4; anything else reads all ones
  void port_write(u16 port, unsigned size, u32 value);
  u64 mmio_read(Gpa gpa, unsigned size);  // size 1..8
  void mmio_write(Gpa gpa, unsigned size, u64 value);
  u8 pic_acknowledge();
  void ioapic_eoi(u8 vector);
  void numeric_error();  // the processor's FERR# has gone up

  // Bytes for the guest's console: COM1, or the keyboard of a machine with a display. Takes as many as there is room
  // for and returns how many; the rest waits for console_room().
  std::size_t console_input(const u8* bytes, std::size_t count);
  std::size_t console_room() const;

  // What a display shows; nothing without one.
  std::optional<devices::TextMode> text_mode() const;

  // Does the guest wait to be interrupted by COM1's transmitter?
  bool transmitter_interrupts() const;

  // Brings the page up to date. `com1_readable`: the core may read COM1 by itself; else each look at it is a request.
  void publish(DevicePage& page, bool com1_readable) const;

  bool press_power_button();  // ACPI fixed power button: a guest that listens (true) shuts down

  u64 deadline_ns() const;  // earliest of all devices
  void tick();              // time has reached it
  void reset();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

namespace map = devices::map;
using devices::pci_intx_gsi;

}  // namespace trapline::machine
