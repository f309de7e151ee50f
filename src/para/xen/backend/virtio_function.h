// A virtio device of the machine, which the hypervisor drives: VIRTIO 1.2, 4.1, found by PCI configuration mechanism #1.
// The machine has placed the BARs. Its interrupts are messages to vCPU 0.
#pragma once

#include <vector>

#include "base/addr.h"
#include "base/types.h"
#include "cpu/vcpu.h"
#include "para/xen/backend/virtio_queue.h"

namespace trapline::para::xen {

class VirtioFunction {
 public:
  static constexpr u16 kNetwork = 1, kBlock = 2;  // types (5)
  static constexpr u64 kIndirect = u64{1} << 28, kVersion1 = u64{1} << 32;

  // All that there are, in the order of their slots.
  static std::vector<VirtioFunction> find(cpu::Vcpu& cpu);
  u16 type() const { return type_; }

  // VIRTIO 1.2, 3.1.1: reset, and those of the features `wanted` that the device has; each queue; DRIVER_OK. False: the
  // device refuses.
  bool begin(cpu::Vcpu& cpu, u64 wanted);
  void add_queue(cpu::Vcpu& cpu, u16 index, const VirtioQueue& queue, u8 vector);
  void go(cpu::Vcpu& cpu);

  u64 features() const { return features_; }
  u64 config(cpu::Vcpu& cpu, u64 offset, unsigned size) const;
  void ring(cpu::Vcpu& cpu, u16 queue) const;

 private:
  VirtioFunction(unsigned slot, u16 type) : slot_{slot}, type_{type} {}
  bool locate(cpu::Vcpu& cpu);
  u32 pci_read(cpu::Vcpu& cpu, unsigned offset) const;
  void pci_write(cpu::Vcpu& cpu, unsigned offset, u32 value) const;
  u8 pci_byte(cpu::Vcpu& cpu, unsigned offset) const {
    return static_cast<u8>(pci_read(cpu, offset & ~3u) >> 8 * (offset & 3));
  }
  u64 common(cpu::Vcpu& cpu, u64 offset, unsigned size) const;
  void set_common(cpu::Vcpu& cpu, u64 offset, unsigned size, u64 value) const;

  unsigned slot_;
  u16 type_;
  u64 common_ = 0, config_ = 0, notify_ = 0, vectors_ = 0;
  u32 notify_step_ = 0;
  u64 features_ = 0;
};

}  // namespace trapline::para::xen
