// A virtio device by memory-mapped registers: VIRTIO 1.2, 4.2, version 2. They cannot be found by looking: ACPI names them
// (LNRO0005). The n-th has kBytes at devices::map::virtio_mmio + n * kBytes.
//
// Doorbells are requests here as other accesses are: which queue is meant is in the value, not in the place.
#pragma once

#include <string>

#include "devices/device.h"
#include "devices/virtio/device.h"

namespace trapline::machine {

class VirtioMmio final : public devices::Device, public devices::virtio::Transport {
 public:
  static constexpr u64 kBytes = 0x200;

  struct State {
    devices::virtio::Device::State device;
    u32 interrupts = 0;
    bool operator==(const State&) const = default;
  };
  State save() const { return {device_.save(), interrupts_}; }
  void restore(const State& state);

  // Both must outlive it. `line`: level.
  VirtioMmio(devices::virtio::Device& device, devices::IrqLine& line);

  const char* name() const override { return device_.kind().name; }
  u64 read(u64 offset, unsigned size) override;
  void write(u64 offset, unsigned size, u64 value) override;
  void reset() override;

  void interrupt(unsigned queue) override;
  void config_changed() override;

 private:
  void raise(u32 why);
  u32 read_register(u64 offset);
  void write_register(u64 offset, u32 value);

  devices::virtio::Device& device_;
  devices::IrqLine& line_;
  u32 interrupts_ = 0;  // InterruptStatus
};

// Words for a Linux that is told to look at no ACPI table (acpi=off) and was built with VIRTIO_MMIO_CMDLINE_DEVICES: where
// the first so many devices are. Nothing if `command_line` does not say that, or names devices itself.
std::string virtio_mmio_words(const std::string& command_line, u32 devices);

}  // namespace trapline::machine
