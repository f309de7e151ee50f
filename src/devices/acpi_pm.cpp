#include "devices/acpi_pm.h"

#include <utility>

#include "base/trace.h"

namespace trapline::devices {

namespace {

constexpr u64 kNsPerSecond = 1'000'000'000;
constexpr unsigned kTimerTopBit = 31;  // TMR_STS is set whenever it toggles

constexpr u16 kTimerStatus = 1u << 0, kPowerButton = 1u << 8, kClockAlarm = 1u << 10;
constexpr u16 kStatusBits = 0x8731;  // WAK, RTC, SLPBTN, PWRBTN, GBL, BM, TMR
constexpr u16 kEnableBits = 0x0721;
constexpr u16 kSciEnable = 1u << 0, kSleepEnable = 1u << 13;
constexpr u16 kControlBits = 0x1c03;  // SLP_TYP, BM_RLD, SCI_EN: GBL_RLS and SLP_EN read as 0

}  // namespace

AcpiPm::AcpiPm(IrqLine& sci, TimeSource& time, std::function<void()> power_off)
    : sci_{sci}, time_{time}, power_off_{std::move(power_off)} {}

void AcpiPm::reset() {
  s_.status = s_.enable = s_.gpe_enable = 0;
  s_.control = kSciEnable;
  s_.overflows_seen = timer_ticks() >> kTimerTopBit;
  update();
}

u64 AcpiPm::timer_ticks() const { return pm_timer_ticks(time_.now_ns()); }

void AcpiPm::collect_timer_status() {
  const u64 overflows = timer_ticks() >> kTimerTopBit;
  if (overflows > s_.overflows_seen) s_.status |= kTimerStatus;
  s_.overflows_seen = overflows;
}

void AcpiPm::update() {
  sci_.set(s_.status & s_.enable & kEnableBits);
  s_.deadline = kNever;
  if (!(s_.enable & kTimerStatus) || (s_.status & kTimerStatus)) return;
  const u128 next = (static_cast<u128>(s_.overflows_seen + 1) << kTimerTopBit) * kNsPerSecond / kPmTimerHz + 1;
  s_.deadline = next >= kNever ? kNever : static_cast<u64>(next);
}

void AcpiPm::tick() {
  collect_timer_status();
  update();
}

bool AcpiPm::press_power_button() {
  s_.status |= kPowerButton;
  update();
  return s_.enable & kPowerButton;
}

void AcpiPm::clock_alarm() {
  s_.status |= kClockAlarm;
  update();
}

bool AcpiPm::awaits_clock_alarm() const { return s_.enable & ~s_.status & kClockAlarm; }

u8 AcpiPm::read_byte(u64 offset, u32 timer) const {
  const auto lane = [&](u32 reg, u64 start) { return static_cast<u8>(reg >> 8 * (offset - start)); };
  if (offset < 2) return lane(s_.status, 0);
  if (offset < 4) return lane(s_.enable, 2);
  if (offset < 6) return lane(s_.control, 4);
  if (offset >= kTimer && offset < kTimer + 4) return lane(timer, kTimer);
  if (offset >= kGpe0 + 2 && offset < kGpe0 + 4) return lane(s_.gpe_enable, kGpe0 + 2);
  return 0;  // GPE0 status: there are no events
}

u64 AcpiPm::read(u64 offset, unsigned size) {
  collect_timer_status();
  update();
  const u32 timer = static_cast<u32>(timer_ticks());
  u64 value = 0;
  for (unsigned i = 0; i < size && i < 8; i++) value |= static_cast<u64>(read_byte(offset + i, timer)) << 8 * i;
  return value;
}

void AcpiPm::write(u64 offset, unsigned size, u64 value) {
  collect_timer_status();
  bool sleep = false;
  for (unsigned i = 0; i < size && i < 8; i++) {
    const u64 at = offset + i;
    const unsigned shift = at & 1 ? 8 : 0;
    const u16 byte = static_cast<u16>((value >> 8 * i & 0xff) << shift), lane = static_cast<u16>(0xff << shift);
    if (at < 2) {
      s_.status &= static_cast<u16>(~(byte & kStatusBits));  // write 1 to clear
    } else if (at < 4) {
      s_.enable = static_cast<u16>(((s_.enable & ~lane) | byte) & kEnableBits);
    } else if (at < 6) {
      s_.control = static_cast<u16>((((s_.control & ~lane) | byte) & kControlBits) | kSciEnable);
      sleep |= byte & kSleepEnable;
    } else if (at >= kGpe0 + 2 && at < kGpe0 + 4) {
      s_.gpe_enable = static_cast<u16>((s_.gpe_enable & ~lane) | byte);
    }
  }
  update();
  if (!sleep) return;
  const unsigned type = s_.control >> 10 & 7;
  TRACE(devices, "acpi-pm sleep type {}", type);
  if (type == kSleepTypeS5) power_off_();
}

}  // namespace trapline::devices
