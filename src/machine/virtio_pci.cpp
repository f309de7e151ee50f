#include "machine/virtio_pci.h"

#include "base/invariant.h"

namespace trapline::machine {

namespace {

using devices::virtio::RingPlace;

// 4.1.4: what a capability points to.
enum Structure : u8 { common = 1, notify = 2, isr = 3, device_config = 4, pci_access = 5 };
constexpr u8 kVendorCapability = 0x09;
// PCI Bus Power Management Interface 1.2, 3.2: D0 and D3, no events, and state that outlives D3. Drivers which see the last
// do not reset the device when the guest suspends (Linux 6.9 and later), which some could not set up again: that of 9P.
constexpr u8 kPowerCapability = 0x01, kPowerVersion = 3, kPowerState = 3, kNoSoftReset = 1 << 3;
constexpr u32 kDoorbellBytes = 4;
constexpr u8 kQueueInterrupt = 1, kConfigInterrupt = 2;  // ISR status

// 4.1.4.3: the common configuration's registers.
enum Common : u64 {
  device_feature_select = 0x00,
  device_feature = 0x04,
  driver_feature_select = 0x08,
  driver_feature = 0x0c,
  config_msix_vector = 0x10,
  num_queues = 0x12,
  device_status = 0x14,
  config_generation = 0x15,
  queue_select = 0x16,
  queue_size = 0x18,
  queue_msix_vector = 0x1a,
  queue_enable = 0x1c,
  queue_notify_off = 0x1e,
  queue_desc = 0x20,
  queue_driver = 0x28,
  queue_device = 0x30,
};
constexpr u64 kCommonBytes = 0x38;

PciDevice::Identity identity(const devices::virtio::Device& device) {
  const auto& kind = device.kind();
  return {.vendor = 0x1af4,
          .device = static_cast<u16>(0x1040 + kind.type),
          .class_code = kind.class_code,
          .revision = 1,
          .subsystem_vendor = 0x1af4,
          .subsystem = 0x1100};
}

}  // namespace

VirtioPci::VirtioPci(devices::virtio::Device& device, devices::MsiSink& messages, devices::IrqLine& inta)
    : PciDevice{identity(device)},
      device_{device},
      inta_{inta},
      msix_{messages, std::min(device.queues() + 1u, 64u)},
      queue_vectors_(device.queues(), Msix::kNoVector) {
  device.attach(*this);
  add_bar(kBar, BarKind::memory32, kBarBytes, registers_);
  add_bar(kMsixBar, BarKind::memory32, Msix::kBarBytes, msix_);
  set_interrupt_pin(1);
  add_capabilities();
}

void VirtioPci::add_capabilities() {
  const auto put32 = [this](unsigned at, u32 value) {
    for (unsigned i = 0; i < 4; i++) config_[at + i] = static_cast<u8>(value >> 8 * i);
  };
  const auto structure = [&](Structure type, u64 offset, u64 length, unsigned bytes) {
    const unsigned at = add_capability(kVendorCapability, bytes);
    config_[at + 2] = static_cast<u8>(bytes);
    config_[at + 3] = type;
    config_[at + 4] = kBar;
    put32(at + 8, static_cast<u32>(offset));
    put32(at + 12, static_cast<u32>(length));
    return at;
  };
  structure(common, kCommon, kCommonBytes, 16);
  put32(structure(notify, kNotify, u64{device_.queues()} * kDoorbellBytes, 20) + 16, kDoorbellBytes);
  structure(isr, kIsr, 1, 16);
  structure(device_config, kConfig, 0x1000, 16);
  window_ = structure(pci_access, 0, 0, 20);
  make_writable(window_ + 4, 1);
  make_writable(window_ + 8, 8);
  msix_capability_ = add_capability(Msix::kCapability, Msix::kCapabilityBytes);
  config_[msix_capability_ + 2] = static_cast<u8>(msix_.vectors() - 1);
  put32(msix_capability_ + 4, kMsixBar);
  put32(msix_capability_ + 8, static_cast<u32>(Msix::kPending) | kMsixBar);
  make_writable(msix_capability_ + 3, 1, 0xc0);
  power_ = add_capability(kPowerCapability, 8);
  config_[power_ + 2] = kPowerVersion;
  config_[power_ + 4] = kNoSoftReset;
  make_writable(power_ + 4, 1, kPowerState);
}

// 4.1.4.9: a window into BAR 0 by configuration accesses. Its size, or 0 for one that cannot be; `at` its place.
unsigned VirtioPci::access_window(unsigned size, u64& at) const {
  const auto get32 = [this](unsigned from) {
    return u32{config_[from]} | u32{config_[from + 1]} << 8 | u32{config_[from + 2]} << 16 |
           u32{config_[from + 3]} << 24;
  };
  at = get32(window_ + 8);
  const u32 length = get32(window_ + 12);
  const bool can_be = (length == 1 || length == 2 || length == 4) && size >= length && config_[window_ + 4] == kBar &&
                      at % length == 0 && at < kBarBytes;
  return can_be ? length : 0;
}

u32 VirtioPci::config_read(unsigned offset, unsigned size) {
  if (offset == window_ + 16) {
    u64 at = 0;
    if (const unsigned length = access_window(size, at)) return static_cast<u32>(read(at, length));
  }
  return PciDevice::config_read(offset, size);
}

void VirtioPci::config_write(unsigned offset, unsigned size, u32 value) {
  if (offset == window_ + 16) {
    u64 at = 0;
    if (const unsigned length = access_window(size, at)) write(at, length, value);
    return;
  }
  const u8 state = config_[power_ + 4];
  PciDevice::config_write(offset, size, value);
  if (const u8 asked = config_[power_ + 4] & kPowerState; asked != 0 && asked != kPowerState)
    config_[power_ + 4] = state;
  msix_.control(static_cast<u16>(config_[msix_capability_ + 3] << 8));
  update_line();
}

u64 VirtioPci::read(u64 offset, unsigned size) {
  if (offset < kIsr) return read_common(offset, size);
  if (offset < kConfig) return offset == kIsr ? take_isr() : 0;
  if (offset >= kNotify) return 0;
  u8 bytes[8] = {};
  device_.read_config(offset - kConfig, {bytes, size});
  u64 value = 0;
  for (unsigned i = 0; i < size; i++) value |= u64{bytes[i]} << 8 * i;
  return value;
}

void VirtioPci::write(u64 offset, unsigned size, u64 value) {
  if (offset < kIsr) return write_common(offset, size, value);
  if (offset < kConfig) return;
  if (offset >= kNotify) return device_.notify(static_cast<unsigned>((offset - kNotify) / kDoorbellBytes));
  u8 bytes[8];
  for (unsigned i = 0; i < size; i++) bytes[i] = static_cast<u8>(value >> 8 * i);
  device_.write_config(offset - kConfig, {bytes, size});
}

u64 VirtioPci::take_isr() {
  const u8 was = std::exchange(isr_, u8{0});
  update_line();
  return was;
}

// A register is read at its offset; of the size of the access only as much counts as the register has.
u64 VirtioPci::read_common(u64 offset, unsigned) {
  const auto* q = device_.selected();
  const auto area = [&](Gpa RingPlace::*where) { return q ? (q->place.*where).raw : 0; };
  switch (offset) {
    case device_feature_select:
      return device_.device_select();
    case device_feature:
      return device_.device_features();
    case driver_feature_select:
      return device_.driver_select();
    case driver_feature:
      return device_.driver_features();
    case config_msix_vector:
      return config_vector_;
    case num_queues:
      return device_.queues();
    case device_status:
      return device_.status();
    case config_generation:
      return device_.config_generation();
    case queue_select:
      return device_.queue_select();
    case queue_size:
      return q ? q->place.size : 0;
    case queue_msix_vector:
      return q ? queue_vectors_[device_.queue_select()] : Msix::kNoVector;
    case queue_enable:
      return q && q->enabled;
    case queue_notify_off:
      return device_.queue_select();
    case queue_desc:
      return area(&RingPlace::descriptors);
    case queue_desc + 4:
      return area(&RingPlace::descriptors) >> 32;
    case queue_driver:
      return area(&RingPlace::driver);
    case queue_driver + 4:
      return area(&RingPlace::driver) >> 32;
    case queue_device:
      return area(&RingPlace::device);
    case queue_device + 4:
      return area(&RingPlace::device) >> 32;
    default:
      return 0;
  }
}

void VirtioPci::write_common(u64 offset, unsigned size, u64 value) {
  switch (offset) {
    case device_feature_select:
      device_.device_select() = static_cast<u32>(value);
      break;
    case driver_feature_select:
      device_.driver_select() = static_cast<u32>(value);
      break;
    case driver_feature:
      device_.write_driver_features(static_cast<u32>(value));
      break;
    case config_msix_vector:
      config_vector_ = checked_vector(value);
      break;
    case device_status:
      device_.write_status(static_cast<u8>(value));
      if (device_.status() == 0) {  // 4.1.4.3.1: a reset takes the vectors too
        isr_ = 0;
        config_vector_ = Msix::kNoVector;
        queue_vectors_.assign(queue_vectors_.size(), Msix::kNoVector);
        update_line();
      }
      break;
    case queue_select:
      device_.queue_select() = static_cast<u16>(value);
      break;
    case queue_size:
      device_.write_size(static_cast<u16>(value));
      break;
    case queue_msix_vector:
      if (device_.selected()) queue_vectors_[device_.queue_select()] = checked_vector(value);
      break;
    case queue_enable:
      if ((value & 0xffff) == 1) device_.enable();
      break;
    default:
      write_area(offset, size, value);
  }
}

// 64 bits, in one access or in halves.
void VirtioPci::write_area(u64 offset, unsigned size, u64 value) {
  constexpr Gpa RingPlace::*kAreas[] = {&RingPlace::descriptors, &RingPlace::driver, &RingPlace::device};
  if (offset < queue_desc || offset >= kCommonBytes || offset % 4 != 0 || size < 4) return;
  const auto area = kAreas[(offset - queue_desc) / 8];
  device_.write_place(area, offset % 8 == 0 ? 0 : 32, static_cast<u32>(value));
  if (size == 8 && offset % 8 == 0) device_.write_place(area, 32, static_cast<u32>(value >> 32));
}

// 4.1.5.1.2: a vector that is not there reads back as none.
u16 VirtioPci::checked_vector(u64 value) const {
  return (value & 0xffff) < msix_.vectors() ? static_cast<u16>(value) : Msix::kNoVector;
}

void VirtioPci::interrupt(unsigned queue) { raise(kQueueInterrupt, queue_vectors_[queue]); }
void VirtioPci::config_changed() { raise(kConfigInterrupt, config_vector_); }

void VirtioPci::raise(u8 isr, u16 vector) {
  if (msix_.enabled()) return msix_.raise(vector);
  isr_ |= isr;
  update_line();
}

void VirtioPci::update_line() {
  constexpr unsigned kStatus = 0x06;
  constexpr u8 kPending = 8;  // interrupt status, whether the line is disabled or not (PCI 3.0, 6.2.3)
  const bool pending = isr_ != 0 && !msix_.enabled();
  config_[kStatus] = static_cast<u8>((config_[kStatus] & ~kPending) | (pending ? kPending : 0));
  inta_.set(pending && !intx_disabled());
}

Gpa VirtioPci::doorbells() const {
  const auto bar = memory_bar(kBar);
  return bar && device_.live() ? bar->wrapping_add(kNotify) : Gpa{};
}

void VirtioPci::reset() {
  PciDevice::reset();
  config_[power_ + 4] = kNoSoftReset;
  device_.reset();
  msix_.reset();
  config_[msix_capability_ + 3] = 0;
  isr_ = 0;
  config_vector_ = Msix::kNoVector;
  queue_vectors_.assign(queue_vectors_.size(), Msix::kNoVector);
  update_line();
}

VirtioPci::State VirtioPci::save() const {
  return {PciDevice::save(), msix_.save(), device_.save(), isr_, config_vector_, queue_vectors_};
}

void VirtioPci::restore(const State& state) {
  PciDevice::restore(state.pci);
  msix_.restore(state.msix);
  device_.restore(state.device);
  isr_ = state.isr;
  config_vector_ = state.config_vector;
  queue_vectors_ = state.queue_vectors;
}

}  // namespace trapline::machine
