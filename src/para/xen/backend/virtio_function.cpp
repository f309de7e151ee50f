#include "para/xen/backend/virtio_function.h"

#include "cpu/bus.h"

namespace trapline::para::xen {

namespace {

constexpr u16 kPciAddress = 0xcf8, kPciData = 0xcfc;
constexpr unsigned kSlots = 32;
constexpr u32 kVendor = 0x1af4, kModern = 0x1040;  // 4.1.2: device id 1040 + type
constexpr u32 kDecode = 2, kMaster = 4;            // of the command register
constexpr unsigned kCommand = 0x04, kBar0 = 0x10, kCapabilities = 0x34;
constexpr u8 kVendorCapability = 0x09, kMsixCapability = 0x11;
constexpr u32 kMsixEnable = 1u << 31;
constexpr u32 kLapic = 0xfee00000;  // messages to APIC 0
constexpr unsigned kMostCapabilities = 48;

// 4.1.4.3
enum Common : u64 {
  device_feature_select = 0x00,
  device_feature = 0x04,
  driver_feature_select = 0x08,
  driver_feature = 0x0c,
  device_status = 0x14,
  queue_select = 0x16,
  queue_size = 0x18,
  queue_msix_vector = 0x1a,
  queue_enable = 0x1c,
  queue_desc = 0x20,
  queue_driver = 0x28,
  queue_device = 0x30,
};
enum Status : u8 { acknowledge = 1, driver = 2, driver_ok = 4, features_ok = 8 };

}  // namespace

u32 VirtioFunction::pci_read(cpu::Vcpu& cpu, unsigned offset) const {
  cpu.bus->port_write(cpu, kPciAddress, 4, 1u << 31 | slot_ << 11 | offset);
  return cpu.bus->port_read(cpu, kPciData, 4);
}

void VirtioFunction::pci_write(cpu::Vcpu& cpu, unsigned offset, u32 value) const {
  cpu.bus->port_write(cpu, kPciAddress, 4, 1u << 31 | slot_ << 11 | offset);
  cpu.bus->port_write(cpu, kPciData, 4, value);
}

std::vector<VirtioFunction> VirtioFunction::find(cpu::Vcpu& cpu) {
  std::vector<VirtioFunction> all;
  for (unsigned slot = 0; slot < kSlots; slot++) {
    VirtioFunction f{slot, 0};
    const u32 identity = f.pci_read(cpu, 0), device = identity >> 16;
    if ((identity & 0xffff) != kVendor || device < kModern) continue;
    f.type_ = static_cast<u16>(device - kModern);
    if (f.locate(cpu)) all.push_back(f);
  }
  return all;
}

// 4.1.4: which BARs have what.
bool VirtioFunction::locate(cpu::Vcpu& cpu) {
  enum Kind : u8 { common = 1, notify = 2, device = 4 };
  const auto place = [&](unsigned bar, u32 offset) -> u64 {
    return (pci_read(cpu, kBar0 + 4 * (bar % 6)) & ~15u) + u64{offset};
  };
  unsigned at = pci_byte(cpu, kCapabilities) & 0xfc;
  for (unsigned n = 0; at != 0 && n < kMostCapabilities; n++, at = pci_byte(cpu, at + 1) & 0xfc) {
    const u8 id = pci_byte(cpu, at);
    if (id == kMsixCapability) {
      const u32 table = pci_read(cpu, at + 4);
      vectors_ = place(table & 7, table & ~7u);
      pci_write(cpu, at, pci_read(cpu, at) | kMsixEnable);
    }
    if (id != kVendorCapability) continue;
    const u64 where = place(pci_byte(cpu, at + 4), pci_read(cpu, at + 8));
    switch (pci_byte(cpu, at + 3)) {
      case common:
        common_ = where;
        break;
      case notify:
        notify_ = where;
        notify_step_ = pci_read(cpu, at + 16);
        break;
      case device:
        config_ = where;
        break;
      default:
        break;
    }
  }
  pci_write(cpu, kCommand, (pci_read(cpu, kCommand) & 0xffff) | kDecode | kMaster);
  return common_ != 0 && notify_ != 0 && config_ != 0 && vectors_ != 0;
}

u64 VirtioFunction::common(cpu::Vcpu& cpu, u64 offset, unsigned size) const {
  return cpu.bus->mmio_read(cpu, Gpa{common_ + offset}, size);
}

void VirtioFunction::set_common(cpu::Vcpu& cpu, u64 offset, unsigned size, u64 value) const {
  cpu.bus->mmio_write(cpu, Gpa{common_ + offset}, size, value);
}

u64 VirtioFunction::config(cpu::Vcpu& cpu, u64 offset, unsigned size) const {
  return cpu.bus->mmio_read(cpu, Gpa{config_ + offset}, size);
}

void VirtioFunction::ring(cpu::Vcpu& cpu, u16 queue) const {
  cpu.bus->mmio_write(cpu, Gpa{notify_ + u64{queue} * notify_step_}, 2, queue);
}

bool VirtioFunction::begin(cpu::Vcpu& cpu, u64 wanted) {
  set_common(cpu, device_status, 1, 0);
  set_common(cpu, device_status, 1, acknowledge | driver);
  features_ = 0;
  for (const u32 half : {0u, 1u}) {
    set_common(cpu, device_feature_select, 4, half);
    features_ |= common(cpu, device_feature, 4) << 32 * half;
  }
  features_ &= wanted | kVersion1 | kIndirect;
  for (const u32 half : {0u, 1u}) {
    set_common(cpu, driver_feature_select, 4, half);
    set_common(cpu, driver_feature, 4, features_ >> 32 * half & 0xffffffff);
  }
  set_common(cpu, device_status, 1, acknowledge | driver | features_ok);
  constexpr u64 kNeeded = kVersion1 | kIndirect;
  return (features_ & kNeeded) == kNeeded && (common(cpu, device_status, 1) & features_ok);
}

// Each queue has the MSI-X vector of its number.
void VirtioFunction::add_queue(cpu::Vcpu& cpu, u16 index, const VirtioQueue& queue, u8 vector) {
  const u32 message[] = {kLapic, 0, vector, 0};  // address, its upper half, data, control: not masked
  for (unsigned word = 0; word < 4; word++)
    cpu.bus->mmio_write(cpu, Gpa{vectors_ + 16u * index + 4u * word}, 4, message[word]);
  set_common(cpu, queue_select, 2, index);
  set_common(cpu, queue_size, 2, queue.size());
  set_common(cpu, queue_msix_vector, 2, index);
  set_common(cpu, queue_desc, 8, queue.descriptors().raw);
  set_common(cpu, queue_driver, 8, queue.driver_area().raw);
  set_common(cpu, queue_device, 8, queue.device_area().raw);
  set_common(cpu, queue_enable, 2, 1);
}

void VirtioFunction::go(cpu::Vcpu& cpu) {
  set_common(cpu, device_status, 1, acknowledge | driver | features_ok | driver_ok);
}

}  // namespace trapline::para::xen
