#include "machine/pci.h"

#include <bit>
#include <utility>

#include "base/invariant.h"

namespace trapline::machine {

namespace {

constexpr unsigned kCommand = 0x04, kStatus = 0x06, kBar0 = 0x10, kInterruptLine = 0x3c;
constexpr u16 kIoSpace = 1, kMemorySpace = 2;
constexpr u8 kHasCapabilities = 0x10;
constexpr u32 kAddressEnable = 1u << 31;

}  // namespace

PciDevice::PciDevice(const Identity& id) {
  const auto put = [this](unsigned offset, u32 value, unsigned bytes) {
    for (unsigned i = 0; i < bytes; i++) config_[offset + i] = static_cast<u8>(value >> 8 * i);
  };
  put(0x00, id.vendor, 2);
  put(0x02, id.device, 2);
  put(0x08, id.revision, 1);
  put(0x09, id.class_code, 3);
  put(0x2c, id.subsystem_vendor, 2);
  put(0x2e, id.subsystem, 2);
  make_writable(kCommand, 1, 0x07);      // I/O, memory, bus master
  make_writable(kCommand + 1, 1, 0x04);  // INTx disable
  make_writable(0x0c, 1);                // cache line size
  make_writable(kInterruptLine, 1);
}

void PciDevice::make_writable(unsigned offset, unsigned length, u8 mask) {
  for (unsigned i = 0; i < length && offset + i < writable_.size(); i++) writable_[offset + i] = mask;
}

void PciDevice::add_bar(unsigned index, BarKind kind, u64 size, devices::Device& target) {
  const bool wide = kind == BarKind::memory64;
  INVARIANT(std::has_single_bit(size) && index + wide < 6 && size >= (kind == BarKind::io ? 4u : 16u),
            "BAR {} of {:#x} bytes", index, size);
  INVARIANT(wide || size <= u64{1} << 31, "BAR {} of {:#x} bytes does not fit 32 bits", index, size);
  // The address bits above the size can be written; a guest finds the size by writing ones.
  const u64 mask = ~(size - 1);
  const unsigned at = kBar0 + 4 * index;
  for (unsigned i = 0; i < (wide ? 8u : 4u); i++) writable_[at + i] = static_cast<u8>(mask >> 8 * i);
  config_[at] = kind == BarKind::io ? 1 : wide ? 4 : 0;
  bars_.push_back({kind, index, size, &target});
}

unsigned PciDevice::add_capability(u8 id, unsigned length) {
  const unsigned at = next_capability_;
  INVARIANT(length >= 2 && at + length <= config_.size(), "capability {:#x} of {} bytes does not fit", id, length);
  config_[last_capability_] = static_cast<u8>(at);
  config_[kStatus] |= kHasCapabilities;
  config_[at] = id;
  last_capability_ = at + 1;
  next_capability_ = (at + length + 3) & ~3u;
  return at;
}

u64 PciDevice::base_of(const Bar& bar) const {
  u64 base = 0;
  const unsigned at = kBar0 + 4 * bar.index;
  for (unsigned i = 0; i < (bar.kind == BarKind::memory64 ? 8u : 4u); i++)
    base |= static_cast<u64>(config_[at + i]) << 8 * i;
  return base & ~(bar.size - 1);
}

std::optional<PciDevice::Hit> PciDevice::find_io(u16 port, unsigned size) const {
  if (!(command() & kIoSpace)) return std::nullopt;
  for (const Bar& bar : bars_) {
    const u64 offset = port - base_of(bar);
    if (bar.kind == BarKind::io && offset < bar.size && bar.size - offset >= size) return Hit{bar.target, offset};
  }
  return std::nullopt;
}

std::optional<PciDevice::Hit> PciDevice::find_memory(Gpa gpa, unsigned size) const {
  if (!(command() & kMemorySpace)) return std::nullopt;
  for (const Bar& bar : bars_) {
    const u64 offset = gpa - Gpa{base_of(bar)};
    if (bar.kind != BarKind::io && offset < bar.size && bar.size - offset >= size) return Hit{bar.target, offset};
  }
  return std::nullopt;
}

std::optional<Gpa> PciDevice::memory_bar(unsigned index) const {
  if (!(command() & kMemorySpace)) return std::nullopt;
  for (const Bar& bar : bars_)
    if (bar.index == index && bar.kind != BarKind::io) return Gpa{base_of(bar)};
  return std::nullopt;
}

void PciDevice::place_memory(Gpa& next, Gpa end) {
  for (const Bar& bar : bars_) {
    if (bar.kind == BarKind::io) continue;
    const u64 base = (next.raw + bar.size - 1) & ~(bar.size - 1);
    if (base + bar.size > end.raw) return;  // not decoded: the guest's system may find room
    for (unsigned i = 0; i < 4; i++) {
      u8& byte = config_[kBar0 + 4 * bar.index + i];
      const unsigned kind = i == 0 ? byte & 0x0f : 0;
      byte = static_cast<u8>(kind | (base >> 8 * i & 0xff));
    }
    next = Gpa{base + bar.size};
    config_[kCommand] |= kMemorySpace;
  }
}

u32 PciDevice::config_read(unsigned offset, unsigned size) {
  u32 value = 0;
  for (unsigned i = 0; i < size && offset + i < config_.size(); i++)
    value |= static_cast<u32>(config_[offset + i]) << 8 * i;
  return value;
}

void PciDevice::config_write(unsigned offset, unsigned size, u32 value) {
  for (unsigned i = 0; i < size && offset + i < config_.size(); i++) {
    const u8 mask = writable_[offset + i];
    u8& byte = config_[offset + i];
    byte = static_cast<u8>((byte & ~mask) | (value >> 8 * i & mask));
  }
}

void PciDevice::reset() {
  config_write(kCommand, 2, 0);
  config_write(kInterruptLine, 1, 0);
  for (const Bar& bar : bars_)
    for (unsigned i = 0; i < (bar.kind == BarKind::memory64 ? 2u : 1u); i++)
      config_write(kBar0 + 4 * (bar.index + i), 4, 0);
}

PciBus::PciBus(devices::Device& reset_control) : reset_control_{reset_control} {}

bool PciBus::plug(unsigned slot, std::unique_ptr<PciDevice> device) {
  if (slot >= slots_.size() || slots_[slot]) return false;
  slots_[slot] = std::move(device);
  return true;
}

PciDevice* PciBus::selected() const {
  const bool bus0_function0 = (address_ & 0x00ff0700) == 0;
  return (address_ & kAddressEnable) && bus0_function0 ? slots_[address_ >> 11 & 31].get() : nullptr;
}

u64 PciBus::read(u64 offset, unsigned size) {
  if (offset == 1 && size == 1) return reset_control_.read(0, 1);
  if (offset < 4) return offset == 0 && size == 4 ? address_ : ~u64{0};
  PciDevice* device = selected();
  if (device == nullptr || (offset & (size - 1)) != 0) return ~u64{0};
  return device->config_read((address_ & 0xfc) | (offset & 3), size);
}

void PciBus::write(u64 offset, unsigned size, u64 value) {
  if (offset == 1 && size == 1) return reset_control_.write(0, 1, value);
  if (offset < 4) {
    if (offset == 0 && size == 4) address_ = static_cast<u32>(value) & 0x80ff'fffc;
    return;
  }
  PciDevice* device = selected();
  if (device == nullptr || (offset & (size - 1)) != 0) return;
  device->config_write((address_ & 0xfc) | (offset & 3), size, static_cast<u32>(value));
}

PciBus::State PciBus::save() const {
  State state{address_, {}};
  for (std::size_t i = 0; i < slots_.size(); i++)
    if (slots_[i]) state.slots[i] = slots_[i]->save();
  return state;
}

void PciBus::restore(const State& state) {
  address_ = state.address;
  for (std::size_t i = 0; i < slots_.size(); i++)
    if (slots_[i]) slots_[i]->restore(state.slots[i]);
}

void PciBus::reset() {
  address_ = 0;
  for (auto& device : slots_)
    if (device) device->reset();
}

std::optional<PciDevice::Hit> PciBus::find_io(u16 port, unsigned size) const {
  for (const auto& device : slots_)
    if (device)
      if (auto hit = device->find_io(port, size)) return hit;
  return std::nullopt;
}

std::optional<PciDevice::Hit> PciBus::find_memory(Gpa gpa, unsigned size) const {
  for (const auto& device : slots_)
    if (device)
      if (auto hit = device->find_memory(gpa, size)) return hit;
  return std::nullopt;
}

void PciBus::place_memory(Gpa start, Gpa end) {
  for (auto& device : slots_)
    if (device) device->place_memory(start, end);
}

}  // namespace trapline::machine
