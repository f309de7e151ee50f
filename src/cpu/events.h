// Exceptions and interrupts: delivery through IVT, IDT and task gates; priorities; double and triple faults.
// Intel SDM Vol. 3A chapter 6; priorities: table 6-2.
#pragma once

#include "cpu/vcpu.h"

namespace trapline::cpu {

enum class EventKind : u8 { hardware_interrupt, software_interrupt /* INT n */, software_exception /* INT3, INTO */, exception, nmi, privileged_software_exception /* INT1 */ };

// Delivers cpu.fault: pushes the frame, or escalates to #DF and then shutdown. cpu.rip is that of the faulting instruction (faults)
// or of the next one (traps). Result: jumped, or stop when the vCPU shut down (activity = shutdown).
Outcome deliver_fault(Vcpu& cpu);
// INT n, INT3, INTO, INT1 and interrupts. `return_rip` is pushed. Faults during delivery have been delivered too.
Outcome deliver_event(Vcpu& cpu, EventKind kind, u8 vector, u64 return_rip);

// At an instruction boundary, when attention bits are set or the timer deadline passed: takes INIT, SIPI, NMI, SMP requests, the
// timer and, if IF and no shadow, one interrupt (local APIC first, then ExtINT). Result: next (nothing changed the flow), jumped (an
// event was delivered; rip is its handler), halt (still waiting), stop (attention::kick: return to the vCPU loop).
Outcome service_events(Vcpu& cpu);

// Cheap question for a halted vCPU and for engines deciding when to look: would service_events() deliver something now?
bool wakeable(Vcpu& cpu);

// After an instruction that started with TF set, or that hit a data/I-O breakpoint: raises #DB (trap) as the manual orders it.
Outcome debug_trap(Vcpu& cpu, u64 dr6_bits);
// Instruction breakpoints armed in DR7 that match cpu.rip, as DR6 bits; 0: none (RF honoured by the caller).
u64 instruction_breakpoints(const Vcpu& cpu);

}  // namespace trapline::cpu
