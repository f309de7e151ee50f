// A virtio device as a PCI function: VIRTIO 1.2, 4.1, without the legacy interface.
//
//   BAR 0   0x0000 common configuration   0x1000 ISR status   0x2000 the device's configuration
//           0x3000 doorbells, 4 bytes a queue
//   BAR 2   MSI-X: a vector for the configuration and one for each queue
//
// Without MSI-X the function pulls its INTA.
#pragma once

#include "devices/device_page.h"
#include "devices/virtio/device.h"
#include "machine/msix.h"
#include "machine/pci.h"

namespace trapline::machine {

class VirtioPci final : public PciDevice, public devices::virtio::Transport {
 public:
  static constexpr u64 kCommon = 0, kIsr = 0x1000, kConfig = 0x2000, kNotify = 0x3000, kBarBytes = 0x4000;
  static constexpr unsigned kBar = 0, kMsixBar = 2;

  struct State {
    PciDevice::State pci;
    Msix::State msix;
    devices::virtio::Device::State device;
    u8 isr = 0;
    u16 config_vector = Msix::kNoVector;
    std::vector<u16> queue_vectors;
    bool operator==(const State&) const = default;
  };
  State save() const;
  void restore(const State& state);

  // All must outlive it.
  VirtioPci(devices::virtio::Device& device, devices::MsiSink& messages, devices::IrqLine& inta);

  u32 config_read(unsigned offset, unsigned size) override;
  void config_write(unsigned offset, unsigned size, u32 value) override;
  void reset() override;

  void interrupt(unsigned queue) override;
  void config_changed() override;

  // Where the doorbells are, or 0 while nobody would hear them.
  Gpa doorbells() const;
  devices::virtio::Device& device() const { return device_; }

 private:
  struct Registers final : devices::Device {
    explicit Registers(VirtioPci& o) : owner{o} {}
    const char* name() const override { return owner.device_.kind().name; }
    u64 read(u64 offset, unsigned size) override { return owner.read(offset, size); }
    void write(u64 offset, unsigned size, u64 value) override { owner.write(offset, size, value); }
    void reset() override {}
    VirtioPci& owner;
  };

  u64 read(u64 offset, unsigned size);
  void write(u64 offset, unsigned size, u64 value);
  u64 read_common(u64 offset, unsigned size);
  void write_common(u64 offset, unsigned size, u64 value);
  void write_area(u64 offset, unsigned size, u64 value);
  u64 take_isr();
  u16 checked_vector(u64 value) const;
  void raise(u8 isr, u16 vector);
  void update_line();
  void add_capabilities();
  unsigned access_window(unsigned size, u64& at) const;

  devices::virtio::Device& device_;
  devices::IrqLine& inta_;
  Registers registers_{*this};
  Msix msix_;
  unsigned msix_capability_ = 0, window_ = 0, power_ = 0;
  u8 isr_ = 0;
  u16 config_vector_ = Msix::kNoVector;
  std::vector<u16> queue_vectors_;
};

}  // namespace trapline::machine
