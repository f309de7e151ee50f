// MSI-X of a PCI function (PCI Local Bus 3.0, 6.8.2): the table and the pending bits as device memory, and the
// decision what becomes of an interrupt.
//
//   0x000  table: 16 bytes a vector {address, address high, data, control: bit 0 masked}
//   0x800  pending bits
#pragma once

#include <vector>

#include "devices/device.h"
#include "devices/ioapic.h"

namespace trapline::machine {

class Msix final : public devices::Device {
 public:
  static constexpr u64 kBarBytes = 0x1000, kPending = 0x800;
  static constexpr u16 kNoVector = 0xffff;
  static constexpr unsigned kCapability = 0x11, kCapabilityBytes = 12;

  struct Entry {
    u32 address = 0, address_high = 0, data = 0, control = 1;
    bool operator==(const Entry&) const = default;
  };
  struct State {
    std::vector<Entry> table;
    u64 pending = 0;
    bool enabled = false, masked = false;
    bool operator==(const State&) const = default;
  };
  State save() const { return s_; }
  void restore(const State& state) { s_ = state; }

  // At most 64 vectors.
  Msix(devices::MsiSink& sink, unsigned vectors);
  unsigned vectors() const { return static_cast<unsigned>(s_.table.size()); }

  const char* name() const override { return "msix"; }
  u64 read(u64 offset, unsigned size) override;
  void write(u64 offset, unsigned size, u64 value) override;
  void reset() override;

  // Message control, as the guest has written it: bit 15 enables, bit 14 masks all.
  void control(u16 value);
  bool enabled() const { return s_.enabled; }
  // An interrupt by this vector. A masked one is pending until the mask goes; one that is not there is nothing.
  void raise(u16 vector);

 private:
  void send_unmasked();
  devices::MsiSink& sink_;
  State s_;
};

}  // namespace trapline::machine
