// PCI bus 0 behind configuration mechanism #1 (PCI Local Bus 3.0, 3.2.2.3.2), and what a device on it is made of.
//
//   port 0xcf8: enable 31 | bus 23:16 | device 15:11 | function 10:8 | register 7:2 | 00        ports 0xcfc..0xcff:
//   that register
//
// A device derives from PciDevice, describes its header and BARs in its constructor, and is plugged into the bus. The
// bus finds the BAR that an access falls into; BARs may be moved by the guest at any time.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <vector>

#include "base/addr.h"
#include "base/types.h"
#include "devices/device.h"

namespace trapline::machine {

class PciDevice {
 public:
  struct Identity {
    u16 vendor, device;
    u32 class_code;  // class, subclass, interface: 24 bits
    u8 revision = 0;
    u16 subsystem_vendor = 0, subsystem = 0;
  };
  enum class BarKind : u8 { io, memory32, memory64 };

  // Of the configuration space: what the guest has written, and what never changes.
  struct State {
    std::array<u8, 256> config{};
    bool operator==(const State&) const = default;
  };
  State save() const { return {config_}; }
  void restore(const State& state) { config_ = state.config; }

  explicit PciDevice(const Identity& identity);
  virtual ~PciDevice() = default;

  // Offset 0..255, size 1, 2 or 4, aligned to size (the bus sees to it). Override to notice writes to registers of
  // one's own.
  virtual u32 config_read(unsigned offset, unsigned size);
  virtual void config_write(unsigned offset, unsigned size, u32 value);
  virtual void reset();

  struct Hit {
    devices::Device* target;
    u64 offset;
  };
  std::optional<Hit> find_io(u16 port, unsigned size) const;
  std::optional<Hit> find_memory(Gpa gpa, unsigned size) const;
  // Where its memory BARs go when firmware places them, from `next` on, which moves; they are decoded from then on.
  void place_memory(Gpa& next, Gpa end);
  bool bus_master() const { return command() & 4; }
  bool intx_disabled() const { return command() & 0x400; }

 protected:
  // `index` 0..5 (memory64 takes two); `size` a power of two, at least 4 (io) or 16 (memory). `target` gets offsets
  // within the BAR.
  void add_bar(unsigned index, BarKind kind, u64 size, devices::Device& target);
  void set_interrupt_pin(u8 pin) { config_[0x3d] = pin; }  // 1: INTA
  // Appends a capability of `length` bytes (its first two are filled in here) and returns its offset.
  unsigned add_capability(u8 id, unsigned length);
  // The base of a memory BAR; nothing while it is not decoded.
  std::optional<Gpa> memory_bar(unsigned index) const;
  void make_writable(unsigned offset, unsigned length, u8 mask = 0xff);
  std::array<u8, 256> config_{};

 private:
  struct Bar {
    BarKind kind;
    unsigned index;
    u64 size;
    devices::Device* target;
  };
  u16 command() const { return static_cast<u16>(config_[4] | config_[5] << 8); }
  u64 base_of(const Bar& bar) const;  // a port, or guest-physical

  std::array<u8, 256> writable_{};
  std::vector<Bar> bars_;
  unsigned next_capability_ = 0x40;
  unsigned last_capability_ = 0x34;  // where the pointer to the next one goes
};

// Ports 0xcf8..0xcff (offsets 0..7). A byte access to offset 1 is the reset control register, as on every chipset since
// the PIIX3.
class PciBus final : public devices::Device {
 public:
  struct State {
    u32 address = 0;
    std::array<PciDevice::State, 32> slots;  // those without a device: zeros
    bool operator==(const State&) const = default;
  };
  State save() const;
  void restore(const State& state);  // of a bus with the same devices

  explicit PciBus(devices::Device& reset_control);

  // `slot` 0..31; function 0 only. False: the slot is taken.
  bool plug(unsigned slot, std::unique_ptr<PciDevice> device);
  std::optional<PciDevice::Hit> find_io(u16 port, unsigned size) const;
  std::optional<PciDevice::Hit> find_memory(Gpa gpa, unsigned size) const;
  // What firmware does after RESET, as there is none: gives every memory BAR a place in [start, end).
  void place_memory(Gpa start, Gpa end);

  const char* name() const override { return "pci"; }
  u64 read(u64 offset, unsigned size) override;
  void write(u64 offset, unsigned size, u64 value) override;
  void reset() override;

 private:
  PciDevice* selected() const;

  devices::Device& reset_control_;
  u32 address_ = 0;
  std::array<std::unique_ptr<PciDevice>, 32> slots_;
};

}  // namespace trapline::machine
