// The local APIC timer: one-shot, periodic and TSC-deadline. SDM Vol. 3A 10.5.4.
//
// It counts at the TSC's rate (see lapic_prescale), divided by the divide register. Nothing ticks: counts are computed
// from the clock when read, and Vcpu::timer_deadline says when on_timer() is due.
//
//   s_.timer_start          s_.timer_start + period
//   |-- initial count ... 0|-- periodic: next --
#include "base/trace.h"
#include "cpu/hypervisor.h"
#include "cpu/lapic.h"
#include "cpu/lapic_registers.h"
#include "cpu/vcpu.h"

namespace trapline::cpu {

using namespace apic;

namespace {
enum TimerMode : u32 { one_shot = 0, periodic = 1, deadline = 2 };
constexpr u64 kNever = ~u64{0};
}  // namespace

u32 Lapic::timer_mode() const { return s_.reg[lvt_timer] >> 17 & 3; }

u64 Lapic::tick_length() const {
  const u32 code = (s_.reg[divide] & 3) | (s_.reg[divide] >> 1 & 4);  // 0: by 2 ... 6: by 128, 7: by 1
  return u64{lapic_prescale(cpu_.clock ? cpu_.clock->tsc_khz : 0)} << ((code + 1) & 7);
}

u64 Lapic::timer_period() const { return s_.reg[initial_count] * tick_length(); }

u32 Lapic::current_count() const {
  if (!s_.timer_running || timer_mode() == TimerMode::deadline) return 0;
  const u64 elapsed = cpu_.vm_tsc() - s_.timer_start, period = timer_period();
  if (elapsed >= period && timer_mode() != TimerMode::periodic) return 0;
  return static_cast<u32>((period - elapsed % period + tick_length() - 1) / tick_length());
}

// Periods that have passed are passed: late ticks merge into one, as they do in the IRR of a real APIC.
void Lapic::settle_periods(u64 now) {
  const u64 period = timer_period(), elapsed = now - s_.timer_start;
  if (elapsed >= period) s_.timer_start += elapsed - elapsed % period;
}

// Derives Vcpu::timer_deadline. A masked timer needs no event: its count is computed on demand. Nor does a periodic one
// whose last interrupt has not been accepted yet: a guest that holds it back is not woken for what it would not see.
void Lapic::arm() {
  cpu_.timer_deadline = kNever;
  s_.timer_quiet = false;
  if (s_.reg[lvt_timer] & kMasked) return;
  if (timer_mode() == TimerMode::deadline) {
    if (s_.tsc_deadline == 0) return;
    const u64 now = cpu_.vm_tsc(), guest_now = now + cpu_.tsc_shift();
    const u64 ahead = s_.tsc_deadline > guest_now ? s_.tsc_deadline - guest_now : 0;
    cpu_.timer_deadline = now + ahead < now ? kNever - 1 : now + ahead;
  } else if (s_.timer_running) {
    s_.timer_quiet = timer_mode() == TimerMode::periodic && requested(static_cast<u8>(s_.reg[lvt_timer]));
    if (!s_.timer_quiet) cpu_.timer_deadline = s_.timer_start + timer_period();
  }
  TRACE(clock, "timer due {}", cpu_.timer_deadline);
}

// The next interrupt comes with the next period: those that have passed meanwhile are in the one just accepted.
void Lapic::timer_accepted(u8 vector) {
  if (vector != static_cast<u8>(s_.reg[lvt_timer])) return;
  settle_periods(cpu_.vm_tsc());
  arm();
}

void Lapic::fire() {
  TRACE(clock, "timer fired");
  local_interrupt(lvt_timer);
}

void Lapic::on_timer(u64 vm_tsc) {
  if (cpu_.hypervisor) return cpu_.hypervisor->on_timer(cpu_);
  if (vm_tsc < cpu_.timer_deadline) return;
  switch (timer_mode()) {
    case TimerMode::deadline:
      s_.tsc_deadline = 0;
      break;
    case TimerMode::periodic:
      settle_periods(vm_tsc);
      break;
    default:
      s_.timer_running = false;
      break;
  }
  fire();
  arm();
}

void Lapic::write_initial_count(u32 value) {
  if (timer_mode() == TimerMode::deadline) return;
  s_.reg[initial_count] = value;
  s_.timer_running = value != 0;
  s_.timer_start = cpu_.vm_tsc();
  arm();
}

// The count goes on from where it is, at the new rate.
void Lapic::write_divide(u32 value) {
  const u32 left = current_count();
  s_.reg[divide] = value & 0xb;
  if (!s_.timer_running) return;
  s_.timer_start = cpu_.vm_tsc() - (s_.reg[initial_count] - left) * tick_length();
  arm();
}

void Lapic::timer_lvt_changed(u32 old_lvt) {
  if (s_.timer_quiet) settle_periods(cpu_.vm_tsc());
  const bool was_deadline = (old_lvt >> 17 & 3) == TimerMode::deadline,
             is_deadline = timer_mode() == TimerMode::deadline;
  // "Transitioning between TSC-deadline mode and other timer modes also disarms the timer" (10.5.4.1).
  if (was_deadline != is_deadline) {
    s_.timer_running = false;
    s_.tsc_deadline = 0;
    s_.reg[initial_count] = 0;
  }
  if (s_.timer_running) {  // what became due while masked is lost, not late
    const u64 now = cpu_.vm_tsc();
    if (timer_mode() == TimerMode::periodic) {
      if (old_lvt & kMasked) settle_periods(now);
    } else if (old_lvt & kMasked && now - s_.timer_start >= timer_period()) {
      s_.timer_running = false;
    }
  } else if (is_deadline && (old_lvt & kMasked) && s_.tsc_deadline != 0 && cpu_.tsc() >= s_.tsc_deadline) {
    s_.tsc_deadline = 0;
  }
  arm();
}

void Lapic::write_deadline(u64 value) {
  if (timer_mode() != TimerMode::deadline) return;  // ignored in the other modes
  s_.tsc_deadline = value;
  arm();
  on_timer(cpu_.vm_tsc());  // a deadline already passed fires at once
}

u64 Lapic::read_deadline() {
  on_timer(cpu_.vm_tsc());
  // Masked, it passes unnoticed; the MSR must still read 0 from then on.
  if (timer_mode() == TimerMode::deadline && s_.tsc_deadline != 0 && cpu_.tsc() >= s_.tsc_deadline) s_.tsc_deadline = 0;
  return s_.tsc_deadline;
}

void Lapic::tsc_adjusted() {
  if (timer_mode() != TimerMode::deadline || s_.tsc_deadline == 0) return;
  arm();
  on_timer(cpu_.vm_tsc());
}

}  // namespace trapline::cpu
