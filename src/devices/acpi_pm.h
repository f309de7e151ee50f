// The fixed ACPI hardware (ACPI 6.4, 4.8.3): PM1 event and control registers, the 32-bit power-management timer, and an
// empty GPE0 block. The machine is always in ACPI mode: there is no SMI command port, and SCI_EN reads as 1.
//
//   0 PM1_STS   2 PM1_EN   4 PM1_CNT   8 PM_TMR   0x20 GPE0_STS   0x22 GPE0_EN
#pragma once

#include <functional>

#include "base/scaled.h"
#include "devices/device.h"

namespace trapline::devices {

inline constexpr u64 kPmTimerHz = 3'579'545;
constexpr u64 pm_timer_ticks(u64 guest_ns) { return scaled(guest_ns, kPmTimerHz, 1'000'000'000); }
inline constexpr u8 kSleepTypeS5 = 5;  // what \_S5 says and PM1_CNT.SLP_TYP must carry

class AcpiPm final : public Device {
 public:
  static constexpr u64 kSize = 0x40, kPm1Event = 0, kPm1Control = 4, kTimer = 8, kGpe0 = 0x20;

  // Times are guest time.
  struct State {
    u16 status = 0, enable = 0, control = 1;
    u16 gpe_enable = 0;
    u64 overflows_seen = 0;
    u64 deadline = kNever;
    bool operator==(const State&) const = default;
  };
  State save() const { return s_; }
  void restore(const State& state) { s_ = state; }

  AcpiPm(IrqLine& sci, TimeSource& time, std::function<void()> power_off);

  const char* name() const override { return "acpi-pm"; }
  u64 read(u64 offset, unsigned size) override;
  void write(u64 offset, unsigned size, u64 value) override;
  u64 deadline_ns() const override { return s_.deadline; }
  void tick() override;
  void reset() override;

  // Does the guest listen? It has asked for the event, at least.
  bool press_power_button();
  // The clock's alarm: what wakes a guest that sleeps with its interrupts off.
  void clock_alarm();
  bool awaits_clock_alarm() const;

 private:
  u64 timer_ticks() const;
  void collect_timer_status();
  void update();
  u8 read_byte(u64 offset, u32 timer) const;

  IrqLine& sci_;
  TimeSource& time_;
  std::function<void()> power_off_;
  State s_;
};

}  // namespace trapline::devices
