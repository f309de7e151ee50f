// Guest time: the lines by which the guest turns its TSC into nanoseconds since the start, its timers, and what became
// of each vCPU's time.
#include "base/trace.h"
#include "para/xen/domain.h"
#include "para/xen/guest_copy.h"

namespace trapline::para::xen {

namespace {

constexpr u64 kNever = ~u64{0};

}  // namespace

// All vCPUs are given the same line: at VM TSC 0 the system time is 0.
vcpu_time_info_t Domain::time_line(const cpu::Vcpu& cpu) const {
  vcpu_time_info_t t{};
  t.version = 2;
  t.tsc_timestamp = cpu.tsc_shift();
  t.tsc_to_system_mul = scale_.multiplier;
  t.tsc_shift = scale_.shift;
  t.flags = XEN_PVCLOCK_TSC_STABLE_BIT;
  return t;
}

void Domain::write_time(cpu::Vcpu& cpu, u32 vcpu) {
  const Gpa at = events_.vcpu_info(vcpu);
  if (at.raw == 0) return;
  const vcpu_time_info_t line = time_line(cpu);
  std::memcpy(ram_.host(Gpa{at.raw + offsetof(vcpu_info, time)}), &line, sizeof line);
}

// The first tick at which the system time is `ns` or later. Far beyond any clock: never.
u64 Domain::ticks_at(u64 ns) const {
  if (ns > kNever / 1'000'000) return kNever;
  u64 ticks = clock_.ns_to_tsc(ns);
  while (scale_.to_ns(ticks) < ns) ticks++;
  return ticks;
}

void Domain::set_timer(cpu::Vcpu& cpu, u64 absolute_ns) {
  state(cpu).singleshot = absolute_ns == 0 ? kNever : ticks_at(absolute_ns);
  TRACE(clock, "xen: timer at {} ns", absolute_ns);
  arm(cpu);
}

void Domain::arm(cpu::Vcpu& cpu) {
  const VcpuState& v = state(cpu);
  cpu.timer_deadline = std::min({v.singleshot, v.next_period, v.poll_until});
}

void Domain::on_timer(cpu::Vcpu& cpu) {
  VcpuState& v = state(cpu);
  const u64 now = cpu.vm_tsc();
  bool due = false;
  if (v.singleshot <= now) {
    v.singleshot = kNever;
    due = true;
  }
  if (v.next_period <= now) {
    v.next_period += (now - v.next_period) / v.periodic * v.periodic + v.periodic;
    due = true;
  }
  if (v.poll_until <= now) {
    // Left as it is, it would be due again at once; take_event() sees that the poll is over.
    v.poll_until = 0;
    cpu.timer_deadline = std::min(v.singleshot, v.next_period);
    cpu.attention->fetch_or(cpu::attention::interrupt);
  } else {
    arm(cpu);
  }
  if (!due) return;
  const std::lock_guard guard{events_lock_};
  events_.raise_virq(cpu.index, VIRQ_TIMER);
  cpu.attention->fetch_or(cpu::attention::interrupt);
}

// The guest's copy is written where it stands now in the kernel's tables; a guest that has taken it away has none.
void Domain::change_runstate(cpu::Vcpu& cpu, int to) {
  VcpuState& v = state(cpu);
  const u64 now = system_time(cpu);
  v.runstate.time[v.runstate.state & 3] += now - v.runstate.state_entry_time;
  v.runstate.state = to;
  v.runstate.state_entry_time = now;
  if (v.runstate_at == Gva{} || !v.kernel) return;
  const bool nested = std::exchange(v.in_hypercall, true);
  const cpu::Fault fault = cpu.fault;
  if (assists_.load() >> VMASST_TYPE_runstate_update_flag & 1) {
    vcpu_runstate_info under_way = v.runstate;
    under_way.state_entry_time |= XEN_RUNSTATE_UPDATE;
    static_cast<void>(put(cpu, v.runstate_at, under_way));
  }
  static_cast<void>(put(cpu, v.runstate_at, v.runstate));
  cpu.fault = fault;
  v.in_hypercall = nested;
}

}  // namespace trapline::para::xen
