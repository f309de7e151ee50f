#include "core/local_bus.h"

#include "base/scaled.h"
#include "base/trace.h"
#include "cpu/vcpu.h"
#include "devices/acpi_pm.h"
#include "devices/board_map.h"

namespace trapline::core {

namespace {

namespace map = devices::map;
using devices::IoApic;

constexpr u16 kPit = 0x40, kPitControl = 0x43, kPort61 = 0x61, kRtcIndex = 0x70, kRtcData = 0x71, kPost = 0x80;
constexpr u16 kPmTimer = map::acpi_pm + devices::AcpiPm::kTimer;

constexpr bool among(u32 port, u32 first, u32 count) { return port - first < count; }

constexpr bool is_timer(u32 port) { return among(port, kPmTimer, 4); }

// Has something of [port, port + size) to do with what is answered here?
constexpr bool is_local(u32 port, u32 size) {
  for (u32 p = port; p < port + size; p++)
    if (among(p, kPit, 4) || p == kPort61 || among(p, kRtcIndex, 2) || among(p, kPost, 16) || among(p, map::com1, 8) ||
        is_timer(p))
      return true;
  return false;
}

// As Clock::tsc_to_ns.
u64 now_ns(const cpu::Vcpu& cpu) { return scaled(cpu.vm_tsc(), 1'000'000, cpu.clock->tsc_khz); }

const char* name_of(u16 port) {
  if (among(port, kPit, 4)) return "pit";
  if (port == kPort61) return "port61";
  if (among(port, kRtcIndex, 2)) return "rtc";
  if (among(port, kPost, 16)) return "post";
  return "uart16550";
}

// Where a display's memory would be. Text consoles write to it all the same.
bool is_nothing(Gpa gpa) { return gpa.raw - 0xa0000 < 0x20000; }

u64 ones(unsigned size) { return size >= 8 ? ~u64{0} : (u64{1} << 8 * size) - 1; }

}  // namespace

// Wider accesses go to each half, as the chipset does it for devices of a byte's width. The PM timer is wider.
u32 LocalBus::port_read(cpu::Vcpu& cpu, u16 port, unsigned size) {
  if (nobody_at(port, size)) {
    TRACE(devices, "nobody in {:#x}/{}", port, size);
    return static_cast<u32>(ones(size));
  }
  if (!is_local(port, size)) return next_.port_read(cpu, port, size);
  if (is_timer(port) && (port & (size - 1)) == 0) {
    const u32 value = static_cast<u32>(devices::pm_timer_ticks(now_ns(cpu)) >> 8 * (port - kPmTimer) & ones(size));
    TRACE(devices, "acpi-pm in {:#x}/{} -> {:#x}", port, size, value);
    return value;
  }
  if (size == 1) return read_byte(cpu, port);
  const unsigned half = size / 2;
  const u32 low = port_read(cpu, port, half);
  return low | port_read(cpu, static_cast<u16>(port + half), half) << 8 * half;
}

void LocalBus::port_write(cpu::Vcpu& cpu, u16 port, unsigned size, u32 value) {
  if (nobody_at(port, size)) {
    TRACE(devices, "nobody out {:#x}/{} {:#x}", port, size, value & static_cast<u32>(ones(size)));
    return;
  }
  if (!is_local(port, size) || is_timer(port)) return next_.port_write(cpu, port, size, value);
  if (size == 1) return write_byte(cpu, port, static_cast<u8>(value));
  const unsigned half = size / 2;
  port_write(cpu, port, half, value & static_cast<u32>(ones(half)));
  port_write(cpu, static_cast<u16>(port + half), half, value >> 8 * half);
}

void LocalBus::port_read_many(cpu::Vcpu& cpu, u16 port, unsigned size, u32 count, u8* out) {
  if (is_local(port, size) || nobody_at(port, size)) return Bus::port_read_many(cpu, port, size, count, out);
  next_.port_read_many(cpu, port, size, count, out);
}

void LocalBus::port_write_many(cpu::Vcpu& cpu, u16 port, unsigned size, u32 count, const u8* in) {
  if (is_local(port, size) || nobody_at(port, size)) return Bus::port_write_many(cpu, port, size, count, in);
  next_.port_write_many(cpu, port, size, count, in);
}

u8 LocalBus::read_byte(cpu::Vcpu& cpu, u16 port) {
  if (among(port, map::com1, 8)) return read_com1(cpu, port - map::com1);
  if (port == kRtcData) return read_rtc(cpu);
  u8 value = 0xff;  // the PIT's control port and the RTC's index cannot be read
  if (among(port, kPit, 3))
    value = read_pit(cpu, port - kPit);
  else if (port == kPort61) {
    const devices::PitView pit = d_.page.pit.load();
    value = devices::read_port61(static_cast<u8>(pit.port61_low), pit.counters[2], now_ns(cpu));
  } else if (among(port, kPost, 16))
    value = d_.post[port - kPost].load(std::memory_order_relaxed);
  TRACE(devices, "{} in {:#x}/1 -> {:#x}", name_of(port), port, value);
  return value;
}

void LocalBus::write_byte(cpu::Vcpu& cpu, u16 port, u8 value) {
  if (port == map::com1) return send_com1(cpu, value);
  if (port == kPitControl && !pit_command(cpu, value)) {
    next_.port_write(cpu, port, 1, value);
    if (value >> 6 != 3) {
      std::lock_guard guard{d_.pit_lock};
      d_.pit.programmed(value >> 6);
    }
    return;
  }
  if (port == kRtcData)  // with its index, as one access
    return next_.port_write(cpu, kRtcIndex, 2, d_.rtc_index.load(std::memory_order_relaxed) | u32{value} << 8);
  if (port == kRtcIndex)
    d_.rtc_index.store(value & 0x7f, std::memory_order_relaxed);
  else if (among(port, kPost, 16))
    d_.post[port - kPost].store(value, std::memory_order_relaxed);
  else if (port != kPitControl)
    return next_.port_write(cpu, port, 1, value);
  TRACE(devices, "{} out {:#x}/1 {:#x}", name_of(port), port, value);
}

u8 LocalBus::read_pit(cpu::Vcpu& cpu, unsigned counter) {
  {
    std::lock_guard guard{d_.pit_lock};
    if (const auto latched = d_.pit.read_latched(counter)) return *latched;
  }
  devices::PitView pit = d_.page.pit.load();
  std::lock_guard guard{d_.pit_lock};
  return d_.pit.read(counter, pit.counters, devices::pit_ticks(now_ns(cpu)));
}

bool LocalBus::pit_command(cpu::Vcpu& cpu, u8 byte) {
  devices::PitView pit = d_.page.pit.load();
  std::lock_guard guard{d_.pit_lock};
  return d_.pit.command(byte, pit.counters, devices::pit_ticks(now_ns(cpu)));
}

u8 LocalBus::read_rtc(cpu::Vcpu& cpu) {
  const u8 index = d_.rtc_index.load(std::memory_order_relaxed);
  if (index == devices::RtcState::kRegisterC) {  // reading it clears it
    next_.port_write(cpu, kRtcIndex, 1, index);
    return static_cast<u8>(next_.port_read(cpu, kRtcData, 1));
  }
  devices::RtcState rtc = d_.page.rtc.load();
  const u8 value = rtc.read(index, now_ns(cpu));
  TRACE(devices, "rtc in {:#x}/1 -> {:#x}", kRtcData, value);
  return value;
}

// A request takes what was posted first: IIR is asked for where that may change it.
u8 LocalBus::read_com1(cpu::Vcpu& cpu, unsigned reg) {
  constexpr unsigned kIir = 2;
  const u16 port = static_cast<u16>(map::com1 + reg);
  const devices::UartView com1 = d_.page.com1.load();
  const bool changes = reg == kIir && com1.possible[0] & devices::UartView::kInterrupts && !d_.serial.all_taken();
  if (changes || !(com1.possible[reg] & devices::UartView::kReadable))
    return static_cast<u8>(next_.port_read(cpu, port, 1));
  TRACE(devices, "uart16550 in {:#x}/1 -> {:#x}", port, com1.value[reg]);
  return com1.value[reg];
}

void LocalBus::send_com1(cpu::Vcpu& cpu, u8 byte) {
  if (d_.posts && d_.page.com1.load().possible[0] & (devices::UartView::kSends | devices::UartView::kInterrupts)) {
    std::lock_guard guard{d_.serial_lock};
    if (d_.serial.post(byte)) return;
  }
  next_.port_write(cpu, map::com1, 1, byte);
}

// Whichever way it is written: a doorbell is told its queue by its place (VIRTIO 1.2, 4.1.5.2).
bool LocalBus::ring_doorbell(Gpa gpa) {
  if (d_.doorbells == nullptr || gpa < map::firmware_pci_start || gpa >= map::firmware_pci_end) return false;
  const devices::DoorbellView view = d_.page.doorbells.load();
  for (unsigned i = 0; i < devices::DoorbellView::kMost; i++) {
    const u64 offset = gpa - view.at[i];
    if (view.at[i] == Gpa{} || offset >= devices::DoorbellView::kBytes) continue;
    d_.doorbells[i].ring(static_cast<unsigned>(offset / 4));
    return true;
  }
  return false;
}

u64 LocalBus::mmio_read(cpu::Vcpu& cpu, Gpa gpa, unsigned size) {
  if (is_nothing(gpa)) return ones(size);
  const u64 offset = gpa - map::ioapic;
  if (offset != IoApic::kSelect && offset != IoApic::kWindow) return next_.mmio_read(cpu, gpa, size);
  const u8 select = d_.ioapic_select.load(std::memory_order_relaxed);
  const u64 value = (offset == IoApic::kSelect ? select : d_.page.ioapic.load().read(select)) & ones(size);
  TRACE(devices, "ioapic read {:#x}/{} -> {:#x}", gpa.raw, size, value);
  return value;
}

void LocalBus::mmio_write(cpu::Vcpu& cpu, Gpa gpa, unsigned size, u64 value) {
  if (is_nothing(gpa) || ring_doorbell(gpa)) return;
  const u64 offset = gpa - map::ioapic;
  if (offset == IoApic::kSelect) {
    d_.ioapic_select.store(static_cast<u8>(value), std::memory_order_relaxed);
    TRACE(devices, "ioapic write {:#x}/{} {:#x}", gpa.raw, size, value & ones(size));
    return;
  }
  if (offset == IoApic::kWindow)
    next_.mmio_write(cpu, map::ioapic, 4, d_.ioapic_select.load(std::memory_order_relaxed));
  next_.mmio_write(cpu, gpa, size, value);
}

}  // namespace trapline::core
