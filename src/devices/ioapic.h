// I/O APIC with 24 pins (Intel 82093AA data sheet; EOI register as from version 0x20 on). Interrupts leave as the
// messages that an MSI would be: Intel SDM Vol. 3A 10.11.
#pragma once

#include <array>
#include <type_traits>

#include "base/addr.h"
#include "devices/device.h"

namespace trapline::devices {

struct MsiSink {
  virtual ~MsiSink() = default;
  virtual void msi(Gpa address, u32 data) = 0;
};

// What reads need beside the register select. Plain bytes: copies go to the core.
struct IoApicView {
  static constexpr unsigned kPins = 24;
  std::array<u64, kPins> entries{};
  u64 id = 0;
  u32 read(u8 select) const;  // the register behind the window
  bool operator==(const IoApicView&) const = default;
};
static_assert(std::has_unique_object_representations_v<IoApicView>);

class IoApic final : public Device {
 public:
  static constexpr unsigned kPins = IoApicView::kPins;
  static constexpr u64 kSelect = 0x00, kWindow = 0x10, kEoi = 0x40;  // offsets
  // `wired_low`: pins whose source pulls the wire down to request (PCI INTx); such a pin must be programmed active-low.
  IoApic(MsiSink& sink, u32 wired_low);

  struct State {
    u32 requests = 0;  // by pin: the level of its wire
    u8 select = 0;
    IoApicView view;
    bool operator==(const State&) const = default;
  };
  State save() const { return s_; }
  void restore(const State& state) { s_ = state; }

  const char* name() const override { return "ioapic"; }
  u64 read(u64 offset, unsigned size) override;
  void write(u64 offset, unsigned size, u64 value) override;
  void reset() override;

  void set_irq(unsigned pin, bool requested);
  // An edge on a masked pin is lost, and a level is looked at when the mask goes.
  bool rise_matters(unsigned pin) const;
  void eoi(u8 vector);  // broadcast by a local APIC, or written to the EOI register
  const IoApicView& view() const { return s_.view; }

 private:
  bool active(unsigned pin) const;  // the pin's level, through the entry's polarity
  void deliver(unsigned pin);
  void serve_level(unsigned pin);
  void write_register(u32 value);

  MsiSink& sink_;
  u32 wired_low_;
  State s_;
};

}  // namespace trapline::devices
