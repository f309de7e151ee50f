// How one event is taken through the IVT or IDT. delivery.cpp decides between the modes and what a fault on the way
// becomes.
#pragma once

#include "cpu/events.h"
#include "cpu/task_switch.h"

namespace trapline::cpu {

struct Event {
  EventKind kind = EventKind::exception;
  u8 vector = 0;
  bool has_error = false;  // in protected and IA-32e mode
  u32 error = 0;
  u64 return_rip = 0;
  u32 flags = 0;  // RFLAGS as pushed

  // INT n, INT3 and INTO obey the gate's DPL, and faults of their delivery have EXT = 0. INT1 does neither (SDM Vol.
  // 2A, INT).
  bool software() const { return kind == EventKind::software_interrupt || kind == EventKind::software_exception; }
};

// Each: done (cpu is at the handler), trap (a task with its T bit), or fault (cpu.fault set, EXT not yet applied).
Switched deliver_real(Vcpu& cpu, const Event& event);
Switched deliver_protected(Vcpu& cpu, const Event& event);
Switched deliver_long(Vcpu& cpu, const Event& event);

}  // namespace trapline::cpu
