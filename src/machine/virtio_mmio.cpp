#include "machine/virtio_mmio.h"

#include <fmt/format.h>

#include <sstream>

#include "devices/board_map.h"

namespace trapline::machine {

namespace {

using devices::virtio::RingPlace;

// 4.2.2: the registers, 32 bits each.
enum Register : u64 {
  magic_value = 0x000,
  version = 0x004,
  device_id = 0x008,
  vendor_id = 0x00c,
  device_features = 0x010,
  device_features_select = 0x014,
  driver_features = 0x020,
  driver_features_select = 0x024,
  queue_select = 0x030,
  queue_size_most = 0x034,
  queue_size = 0x038,
  queue_ready = 0x044,
  queue_notify = 0x050,
  interrupt_status = 0x060,
  interrupt_acknowledge = 0x064,
  device_status = 0x070,
  queue_descriptors = 0x080,
  queue_driver = 0x090,
  queue_device = 0x0a0,
  shared_memory = 0x0b0,  // its length and place: 16 bytes
  config_generation = 0x0fc,
  config = 0x100,
};
constexpr u32 kMagic = 0x74726976, kVersion = 2, kVendor = 0x504c5254;  // "virt", "TRLP"
constexpr u32 kQueueInterrupt = 1, kConfigInterrupt = 2;

}  // namespace

VirtioMmio::VirtioMmio(devices::virtio::Device& device, devices::IrqLine& line) : device_{device}, line_{line} {
  device.attach(*this);
}

// 4.2.2.2: registers in words, the device's configuration in any size.
u64 VirtioMmio::read(u64 offset, unsigned size) {
  if (offset < config) return size == 4 && offset % 4 == 0 ? read_register(offset) : 0;
  u8 bytes[8] = {};
  device_.read_config(offset - config, {bytes, size});
  u64 value = 0;
  for (unsigned i = 0; i < size; i++) value |= u64{bytes[i]} << 8 * i;
  return value;
}

void VirtioMmio::write(u64 offset, unsigned size, u64 value) {
  if (offset < config) {
    if (size == 4 && offset % 4 == 0) write_register(offset, static_cast<u32>(value));
    return;
  }
  u8 bytes[8];
  for (unsigned i = 0; i < size; i++) bytes[i] = static_cast<u8>(value >> 8 * i);
  device_.write_config(offset - config, {bytes, size});
}

u32 VirtioMmio::read_register(u64 offset) {
  const auto* q = device_.selected();
  switch (offset) {
    case magic_value:
      return kMagic;
    case version:
      return kVersion;
    case device_id:
      return device_.kind().type;
    case vendor_id:
      return kVendor;
    case device_features:
      return device_.device_features();
    case queue_size_most:
      return q ? device_.largest(device_.queue_select()) : 0;
    case queue_ready:
      return q && q->enabled;
    case interrupt_status:
      return interrupts_;
    case device_status:
      return device_.status();
    case config_generation:
      return device_.config_generation();
    default:  // what is written only; shared memory: there is none, which is a length of all ones
      return offset >= shared_memory && offset < shared_memory + 16 ? ~u32{0} : 0;
  }
}

void VirtioMmio::write_register(u64 offset, u32 value) {
  const auto place = [&](Gpa RingPlace::*area, u64 base) { device_.write_place(area, offset == base ? 0 : 32, value); };
  switch (offset) {
    case device_features_select:
      device_.device_select() = value;
      break;
    case driver_features:
      device_.write_driver_features(value);
      break;
    case driver_features_select:
      device_.driver_select() = value;
      break;
    case queue_select:
      device_.queue_select() = value <= 0xffff ? static_cast<u16>(value) : u16{0xffff};
      break;
    case queue_size:
      device_.write_size(value <= 0xffff ? static_cast<u16>(value) : u16{0xffff});
      break;
    case queue_ready:
      if (value == 1) device_.enable();
      break;
    case queue_notify:
      device_.notify(value);
      break;
    case interrupt_acknowledge:
      interrupts_ &= ~value;
      line_.set(interrupts_ != 0);
      break;
    case device_status:
      device_.write_status(static_cast<u8>(value));
      if (device_.status() != 0) break;
      interrupts_ = 0;  // 4.2.3.1.1: a reset
      line_.set(false);
      break;
    case queue_descriptors:
    case queue_descriptors + 4:
      place(&RingPlace::descriptors, queue_descriptors);
      break;
    case queue_driver:
    case queue_driver + 4:
      place(&RingPlace::driver, queue_driver);
      break;
    case queue_device:
    case queue_device + 4:
      place(&RingPlace::device, queue_device);
      break;
    default:
      break;
  }
}

void VirtioMmio::interrupt(unsigned) { raise(kQueueInterrupt); }
void VirtioMmio::config_changed() { raise(kConfigInterrupt); }

void VirtioMmio::raise(u32 why) {
  interrupts_ |= why;
  line_.set(true);
}

void VirtioMmio::reset() {
  device_.reset();
  interrupts_ = 0;
  line_.set(false);
}

void VirtioMmio::restore(const State& state) {
  device_.restore(state.device);
  interrupts_ = state.interrupts;
}

std::string virtio_mmio_words(const std::string& command_line, u32 devices) {
  bool no_acpi = false;
  std::istringstream words{command_line};
  for (std::string word; words >> word;) {
    no_acpi |= word == "acpi=off";
    if (word.starts_with("virtio_mmio.device=")) return {};
  }
  std::string all;
  for (u32 i = 0; no_acpi && i < devices; i++)
    all += fmt::format(" virtio_mmio.device={}@{:#x}:{}", VirtioMmio::kBytes,
                       devices::map::virtio_mmio.raw + i * VirtioMmio::kBytes, devices::pci_intx_gsi(i + 1, 0));
  return all;
}

}  // namespace trapline::machine
