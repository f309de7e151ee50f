// What a vCPU does at an instruction boundary besides executing: other threads' requests, INIT and SIPI, NMI, timer,
// interrupts. Priorities: Intel SDM Vol. 3A table 6-2; INIT and SIPI: 8.4.
#include "cpu/events.h"

#include "base/trace.h"
#include "cpu/code_map.h"
#include "cpu/descriptor.h"
#include "cpu/hypervisor.h"
#include "cpu/lapic.h"
#include "cpu/para.h"

namespace trapline::cpu {

namespace {

constexpr u8 kNmiVector = 2;

bool interrupts_open(const Vcpu& cpu) {
  return (cpu.sys_flags & flag::if_) && (!cpu.interrupt_shadow || cpu.activity == Activity::halted);
}

void clear(Vcpu& cpu, u32 bits) { cpu.attention->fetch_and(~bits, std::memory_order_acq_rel); }

void take_init(Vcpu& cpu) {
  TRACE(interrupts, "INIT");
  clear(cpu, attention::init | attention::any_nmi);
  reset(cpu, true);
  // The bootstrap processor starts over; the others wait to be told where (SDM Vol. 3A 8.4.2).
  cpu.activity = cpu.index == 0 ? Activity::running : Activity::wait_for_sipi;
}

// A start-up IPI means something only to a processor that waits for it. `vector`: page number of the code. True:
// started.
bool take_sipi(Vcpu& cpu) {
  clear(cpu, attention::sipi);
  if (cpu.hypervisor) return cpu.activity == Activity::wait_for_sipi && cpu.hypervisor->start(cpu);
  if (cpu.activity != Activity::wait_for_sipi || !cpu.lapic) return false;
  clear(cpu, attention::any_nmi);  // what came while it waited is dropped
  const u8 vector = cpu.lapic->sipi_vector();
  TRACE(interrupts, "SIPI vector {:#x}", vector);
  Segment& cs = cs_of(cpu);
  load_real_segment(cs, static_cast<u16>(vector << 8));
  cpu.rip = 0;
  cpu.activity = Activity::running;
  update_mode(cpu);
  return true;
}

Outcome take_nmi(Vcpu& cpu) {
  cpu.activity = Activity::running;
  cpu.nmi_blocked = true;
  cpu.count.nmis++;
  TRACE(interrupts, "NMI");
  return deliver_event(cpu, EventKind::nmi, kNmiVector, cpu.rip);
}

// The vector of the most urgent interrupt, acknowledged; or nothing.
std::optional<u8> acknowledge(Vcpu& cpu) {
  if (!cpu.lapic) return std::nullopt;
  if (const std::optional<u8> vector = cpu.lapic->pending()) {
    cpu.lapic->accept(*vector);
    return vector;
  }
  if (cpu.lapic->extint_pending()) return cpu.bus->pic_acknowledge(cpu);
  return std::nullopt;
}

bool more_pending(Vcpu& cpu) { return cpu.lapic->pending() || cpu.lapic->extint_pending(); }

// Called when something may be pending. Result: next when there was nothing to deliver.
Outcome take_interrupt(Vcpu& cpu) {
  if (cpu.hypervisor) return cpu.hypervisor->take_event(cpu);
  if (cpu.lapic) cpu.lapic->notice_lint0();
  if (!(cpu.sys_flags & flag::if_)) {
    cpu.interrupt_waiting = true;
    return Outcome::next;
  }
  if (!interrupts_open(cpu)) {  // the shadow ends with the next instruction: ask again then
    cpu.attention->fetch_or(attention::interrupt, std::memory_order_relaxed);
    return Outcome::next;
  }
  cpu.interrupt_waiting = false;
  const std::optional<u8> vector = acknowledge(cpu);
  if (!vector) return Outcome::next;
  TRACE(interrupts, "vector {:#x} accepted at {:#x}", *vector, cpu.rip);
  cpu.activity = Activity::running;
  cpu.count.interrupts++;
  const Outcome outcome = deliver_event(cpu, EventKind::hardware_interrupt, *vector, cpu.rip);
  if (more_pending(cpu)) {
    cpu.interrupt_waiting = true;
    if (cpu.sys_flags & flag::if_) interrupts_may_be_open(cpu);  // a trap gate
  }
  return outcome;
}

bool timer_due(const Vcpu& cpu) { return cpu.timer_deadline != ~u64{0} && cpu.vm_tsc() >= cpu.timer_deadline; }

// Nothing was delivered: where does the vCPU stand? A kick is answered last, so that it cannot swallow an event.
Outcome idle_outcome(Vcpu& cpu, u32 bits) {
  if (bits & attention::kick) {
    clear(cpu, attention::kick);
    return Outcome::stop;
  }
  switch (cpu.activity) {
    case Activity::running:
      return Outcome::next;
    case Activity::shutdown:
      return Outcome::stop;
    default:
      return Outcome::halt;
  }
}

}  // namespace

Outcome service_events(Vcpu& cpu) {
  const u32 bits = cpu.attention->load(std::memory_order_acquire);
  if (bits & attention::smp_request) {
    clear(cpu, attention::smp_request);  // before the answer: a request that comes meanwhile sets it again
    if (cpu.code) cpu.code->serve(cpu);
  }
  if (bits & attention::code_changed) clear(cpu, attention::code_changed);  // the engine compares CodeMap::epoch()
  bool restarted = false;
  if (bits & attention::init) {
    take_init(cpu);
    restarted = true;
  }
  if (bits & attention::sipi) restarted |= take_sipi(cpu);
  if (restarted) return cpu.activity == Activity::running ? Outcome::jumped : Outcome::halt;
  if (cpu.activity == Activity::wait_for_sipi || cpu.activity == Activity::shutdown) {
    // Deaf to interrupts. They stay with the APIC; INIT has cleared it anyway by the time they count.
    clear(cpu, attention::interrupt | attention::timer | attention::any_nmi | attention::unhalt);
    if (bits & attention::interrupt) cpu.interrupt_waiting = true;
    return idle_outcome(cpu, bits);
  }

  // Real hardware differs on NMI in a shadow; to wait protects a half-loaded SS:SP.
  if ((bits & attention::any_nmi) && (!cpu.interrupt_shadow || cpu.activity == Activity::halted)) {
    const u32 taken = cpu.attention->fetch_and(~attention::any_nmi, std::memory_order_acq_rel) & attention::any_nmi;
    // One is in service and one is kept: IRET asks for it.
    if (cpu.nmi_blocked || taken == attention::any_nmi) cpu.nmi_waiting = true;
    if (!cpu.nmi_blocked) return take_nmi(cpu);
  }

  if (bits & attention::unhalt) {
    clear(cpu, attention::unhalt);
    if (cpu.activity == Activity::halted) {
      cpu.activity = Activity::running;
      return Outcome::jumped;
    }
    cpu.unhalted = true;
  }

  bool look = bits & attention::interrupt;
  if ((bits & attention::timer) || timer_due(cpu)) {
    clear(cpu, attention::timer);
    if (cpu.lapic)
      cpu.lapic->on_timer(cpu.vm_tsc());
    else
      cpu.timer_deadline = ~u64{0};
    if (cpu.para) cpu.para->ticked(cpu);
    look = true;
  }
  if (look) {
    clear(cpu, attention::interrupt);
    const Outcome outcome = take_interrupt(cpu);
    if (outcome != Outcome::next) return outcome;
  }
  return idle_outcome(cpu, bits);
}

bool wakeable(Vcpu& cpu) {
  u32 bits = cpu.attention->load(std::memory_order_acquire);
  if ((bits & attention::interrupt) && cpu.lapic) {
    cpu.lapic->notice_lint0();
    bits = cpu.attention->load(std::memory_order_acquire);
  }
  if (bits & (attention::init | attention::kick | attention::smp_request)) return true;
  if (cpu.activity == Activity::wait_for_sipi) return bits & attention::sipi;
  if (cpu.activity == Activity::shutdown) return false;
  if ((bits & attention::any_nmi) && !cpu.nmi_blocked) return true;
  if (bits & attention::unhalt) return true;
  if ((bits & attention::timer) || timer_due(cpu)) return true;
  if (cpu.hypervisor) return (bits & attention::interrupt) || cpu.hypervisor->wakes(cpu);
  if (!(bits & attention::interrupt) && !cpu.interrupt_waiting) return false;
  return interrupts_open(cpu) && cpu.lapic && more_pending(cpu);
}

}  // namespace trapline::cpu
