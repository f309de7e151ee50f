// From an event to its handler: flags pushed, double and triple faults, and the real-address mode's IVT.
#include "cpu/delivery.h"

#include "base/trace.h"
#include "cpu/hypervisor.h"
#include "cpu/stack.h"

namespace trapline::cpu {

namespace {

// SDM Vol. 3A table 6-4.
enum class FaultClass : u8 { benign, contributory, page_fault };

FaultClass class_of(Vector v) {
  switch (v) {
    case Vector::de:
    case Vector::ts:
    case Vector::np:
    case Vector::ss:
    case Vector::gp:
      return FaultClass::contributory;
    case Vector::pf:
      return FaultClass::page_fault;
    default:
      return FaultClass::benign;
  }
}

FaultClass class_of(const Event& e) {
  return e.kind == EventKind::exception ? class_of(static_cast<Vector>(e.vector)) : FaultClass::benign;
}

bool is_double_fault(const Event& e) {
  return e.kind == EventKind::exception && static_cast<Vector>(e.vector) == Vector::df;
}

// Does RFLAGS.RF go into the image as 1? For faults, so that the handler's IRET gets past an instruction breakpoint;
// not for the breakpoint itself and for aborts. Traps push what is there: 1 only between elements of a REP (SDM Vol. 3B
// 17.3.1.1).
bool sets_resume_flag(const Vcpu& cpu, const Fault& f) {
  switch (f.vector) {
    case Vector::db:
      return (f.dr6 & dr6::bd) || (cpu.sys_flags & flag::rf);
    case Vector::bp:
    case Vector::of:
    case Vector::df:
    case Vector::mc:
      return false;
    default:
      return true;
  }
}

// What an exception changes besides its delivery, once it is certain which one it is; then the event to deliver.
Event event_of(Vcpu& cpu, const Fault& f) {
  Event e;
  e.vector = static_cast<u8>(f.vector);
  e.has_error = has_error_code(f.vector);
  e.error = f.error;
  e.return_rip = cpu.rip;
  e.flags = (cpu.rflags() & ~flag::rf) | (sets_resume_flag(cpu, f) ? flag::rf : 0);
  if (f.vector == Vector::pf) cpu.cr2 = f.cr2;
  if (f.vector == Vector::db) {
    cpu.debug.dr6 = (cpu.debug.dr6 & ~dr6::breakpoints) | f.dr6 | dr6::fixed;
    cpu.debug.dr7 &= ~u64{0x2000};  // GD: the handler may use the debug registers
    cpu.msr.debugctl &= ~u64{3};    // LBR, BTF
  }
  cpu.count.exceptions[e.vector & 31]++;
  TRACE(exceptions, "#{} error {:#x} cr2 {:#x} at {:#x}:{:#x} cpl {}", e.vector, f.error, cpu.cr2, cs_of(cpu).selector,
        cpu.rip, cpu.cpl);
  return e;
}

Switched deliver_once(Vcpu& cpu, const Event& e) {
  if (cpu.long_mode_active()) [[likely]]
    return deliver_long(cpu, e);
  return cpu.protected_mode() ? deliver_protected(cpu, e) : deliver_real(cpu, e);
}

Outcome shut_down(Vcpu& cpu) {
  TRACE(exceptions, "triple fault at {:#x}:{:#x}", cs_of(cpu).selector, cpu.rip);
  cpu.activity = Activity::shutdown;
  return Outcome::stop;
}

// The fault that a failed delivery of `first` leads to (SDM Vol. 3A table 6-5).
Fault escalate(const Event& first, Fault second) {
  const FaultClass a = class_of(first), b = class_of(second.vector);
  const bool both = (a == FaultClass::contributory && b == FaultClass::contributory) ||
                    (a == FaultClass::page_fault && b != FaultClass::benign);
  if (both) return Fault{Vector::df, 0, 0, 0};
  const bool selector_error = b == FaultClass::contributory && has_error_code(second.vector);
  if (selector_error && !first.software()) second.error |= 1;  // EXT
  return second;
}

// Delivers `e` or what its delivery turns into. Events that beget each other without end (#AC at a misaligned ring-3
// stack, say) hang a processor; here the vCPU shuts down.
Outcome deliver(Vcpu& cpu, Event e) {
  if (cpu.hypervisor) {
    cpu.interrupt_shadow = false;
    return cpu.hypervisor->deliver(cpu, e);
  }
  for (int attempts = 0; attempts < 16; attempts++) {
    cpu.interrupt_shadow = false;
    const Switched result = deliver_once(cpu, e);
    if (result == Switched::done) [[likely]]
      return Outcome::jumped;
    if (result == Switched::trap) {
      cpu.fault = Fault{Vector::db, 0, 0, dr6::bt};
      e = event_of(cpu, cpu.fault);
      continue;
    }
    if (is_double_fault(e) && class_of(cpu.fault.vector) != FaultClass::benign) return shut_down(cpu);
    cpu.fault = escalate(e, cpu.fault);
    e = event_of(cpu, cpu.fault);
  }
  return shut_down(cpu);
}

}  // namespace

Outcome deliver_fault(Vcpu& cpu) { return deliver(cpu, event_of(cpu, cpu.fault)); }

Outcome deliver_event(Vcpu& cpu, EventKind kind, u8 vector, u64 return_rip) {
  Event e;
  e.kind = kind;
  e.vector = vector;
  e.return_rip = return_rip;
  e.flags = cpu.rflags();
  // An interrupt leaves RF as it finds it; the instructions have completed, which cleared it.
  if (kind != EventKind::hardware_interrupt && kind != EventKind::nmi) e.flags &= ~flag::rf;
  return deliver(cpu, e);
}

Outcome debug_trap(Vcpu& cpu, u64 dr6_bits) {
  cpu.fault = Fault{Vector::db, 0, 0, dr6_bits};
  return deliver_fault(cpu);
}

u64 instruction_breakpoints(const Vcpu& cpu) {
  const u64 dr7 = cpu.debug.dr7;
  const Gva linear = cpu.linear(Seg::cs, cpu.rip);
  u64 hits = 0;
  for (unsigned i = 0; i < 4; i++) {
    const bool armed = dr7 >> (2 * i) & 3;
    const bool execute = (dr7 >> (16 + 4 * i) & 3) == 0;
    if (armed && execute && cpu.debug.dr[i] == linear.raw) hits |= 1u << i;
  }
  return hits;
}

Switched deliver_real(Vcpu& cpu, const Event& e) {
  if (e.vector * 4u + 3 > cpu.idtr.limit) {
    (void)cpu.raise_gp(e.vector * 8u + 2);
    return Switched::fault;
  }
  u32 target;
  if (!system_read(cpu, table_address(cpu, cpu.idtr.base, e.vector * 4u), target)) return Switched::fault;
  StackWriter stack{cpu};
  if (!stack.has_room(6)) return Switched::fault;
  const u16 ip = static_cast<u16>(target);
  if (ip > cs_of(cpu).limit) {
    (void)cpu.raise_gp(0);
    return Switched::fault;
  }
  if (!stack.push(e.flags & 0xffff, 2) || !stack.push(cs_of(cpu).selector, 2) || !stack.push(e.return_rip & 0xffff, 2))
    return Switched::fault;
  cpu.gpr[isa::rsp] = stack.rsp();
  load_real_segment(cs_of(cpu), static_cast<u16>(target >> 16));
  cpu.rip = ip;
  cpu.sys_flags &= ~(flag::if_ | flag::tf | flag::ac | flag::rf);
  update_mode(cpu);
  return Switched::done;
}

}  // namespace trapline::cpu
