// The local APIC timer: one-shot, periodic and TSC-deadline. SDM Vol. 3A 10.5.4.
//
// It counts at the TSC's rate (see lapic_prescale), divided by the divide register. Nothing ticks: counts are computed
// from the clock when read, and Vcpu::timer_deadline says when on_timer() is due.
//
//   timer_start_          timer_start_ + period
//   |-- initial count ... 0|-- periodic: next --
#include "base/trace.h"
#include "cpu/lapic.h"
#include "cpu/lapic_registers.h"
#include "cpu/vcpu.h"

namespace trapline::cpu {

using namespace apic;

namespace {
enum TimerMode : u32 { one_shot = 0, periodic = 1, deadline = 2 };
constexpr u64 kNever = ~u64{0};
}  // namespace

u32 Lapic::timer_mode() const { return reg_[lvt_timer] >> 17 & 3; }

u64 Lapic::tick_length() const {
  const u32 code = (reg_[divide] & 3) | (reg_[divide] >> 1 & 4);  // 0: by 2 ... 6: by 128, 7: by 1
  return u64{lapic_prescale(cpu_.clock ? cpu_.clock->tsc_khz : 0)} << ((code + 1) & 7);
}

u64 Lapic::timer_period() const { return reg_[initial_count] * tick_length(); }

u32 Lapic::current_count() const {
  if (!timer_running_ || timer_mode() == TimerMode::deadline) return 0;
  const u64 elapsed = cpu_.vm_tsc() - timer_start_, period = timer_period();
  if (elapsed >= period && timer_mode() != TimerMode::periodic) return 0;
  return static_cast<u32>((period - elapsed % period + tick_length() - 1) / tick_length());
}

// Periods that have passed are passed: late ticks merge into one, as they do in the IRR of a real APIC.
void Lapic::settle_periods(u64 now) {
  const u64 period = timer_period(), elapsed = now - timer_start_;
  if (elapsed >= period) timer_start_ += elapsed - elapsed % period;
}

// Derives Vcpu::timer_deadline. A masked timer needs no event: its count is computed on demand. Nor does a periodic one
// whose last interrupt has not been accepted yet: a guest that holds it back is not woken for what it would not see.
void Lapic::arm() {
  cpu_.timer_deadline = kNever;
  timer_quiet_ = false;
  if (reg_[lvt_timer] & kMasked) return;
  if (timer_mode() == TimerMode::deadline) {
    if (tsc_deadline_ == 0) return;
    const u64 now = cpu_.vm_tsc(), guest_now = now + cpu_.tsc_shift();
    const u64 ahead = tsc_deadline_ > guest_now ? tsc_deadline_ - guest_now : 0;
    cpu_.timer_deadline = now + ahead < now ? kNever - 1 : now + ahead;
  } else if (timer_running_) {
    timer_quiet_ = timer_mode() == TimerMode::periodic && requested(static_cast<u8>(reg_[lvt_timer]));
    if (!timer_quiet_) cpu_.timer_deadline = timer_start_ + timer_period();
  }
  TRACE(clock, "timer due {}", cpu_.timer_deadline);
}

// The next interrupt comes with the next period: those that have passed meanwhile are in the one just accepted.
void Lapic::timer_accepted(u8 vector) {
  if (vector != static_cast<u8>(reg_[lvt_timer])) return;
  settle_periods(cpu_.vm_tsc());
  arm();
}

void Lapic::fire() {
  TRACE(clock, "timer fired");
  local_interrupt(lvt_timer);
}

void Lapic::on_timer(u64 vm_tsc) {
  if (vm_tsc < cpu_.timer_deadline) return;
  switch (timer_mode()) {
    case TimerMode::deadline:
      tsc_deadline_ = 0;
      break;
    case TimerMode::periodic:
      settle_periods(vm_tsc);
      break;
    default:
      timer_running_ = false;
      break;
  }
  fire();
  arm();
}

void Lapic::write_initial_count(u32 value) {
  if (timer_mode() == TimerMode::deadline) return;
  reg_[initial_count] = value;
  timer_running_ = value != 0;
  timer_start_ = cpu_.vm_tsc();
  arm();
}

// The count goes on from where it is, at the new rate.
void Lapic::write_divide(u32 value) {
  const u32 left = current_count();
  reg_[divide] = value & 0xb;
  if (!timer_running_) return;
  timer_start_ = cpu_.vm_tsc() - (reg_[initial_count] - left) * tick_length();
  arm();
}

void Lapic::timer_lvt_changed(u32 old_lvt) {
  if (timer_quiet_) settle_periods(cpu_.vm_tsc());
  const bool was_deadline = (old_lvt >> 17 & 3) == TimerMode::deadline,
             is_deadline = timer_mode() == TimerMode::deadline;
  // "Transitioning between TSC-deadline mode and other timer modes also disarms the timer" (10.5.4.1).
  if (was_deadline != is_deadline) {
    timer_running_ = false;
    tsc_deadline_ = 0;
    reg_[initial_count] = 0;
  }
  if (timer_running_) {  // what became due while masked is lost, not late
    const u64 now = cpu_.vm_tsc();
    if (timer_mode() == TimerMode::periodic) {
      if (old_lvt & kMasked) settle_periods(now);
    } else if (old_lvt & kMasked && now - timer_start_ >= timer_period()) {
      timer_running_ = false;
    }
  } else if (is_deadline && (old_lvt & kMasked) && tsc_deadline_ != 0 && cpu_.tsc() >= tsc_deadline_) {
    tsc_deadline_ = 0;
  }
  arm();
}

void Lapic::write_deadline(u64 value) {
  if (timer_mode() != TimerMode::deadline) return;  // ignored in the other modes
  tsc_deadline_ = value;
  arm();
  on_timer(cpu_.vm_tsc());  // a deadline already passed fires at once
}

u64 Lapic::read_deadline() {
  on_timer(cpu_.vm_tsc());
  // Masked, it passes unnoticed; the MSR must still read 0 from then on.
  if (timer_mode() == TimerMode::deadline && tsc_deadline_ != 0 && cpu_.tsc() >= tsc_deadline_) tsc_deadline_ = 0;
  return tsc_deadline_;
}

void Lapic::tsc_adjusted() {
  if (timer_mode() != TimerMode::deadline || tsc_deadline_ == 0) return;
  arm();
  on_timer(cpu_.vm_tsc());
}

}  // namespace trapline::cpu
