// Exceptions and interrupts: delivery through IVT, IDT and task gates; priorities; double and triple faults.
// Intel SDM Vol. 3A chapter 6; priorities: table 6-2.
#pragma once

#include "cpu/vcpu.h"

namespace trapline::cpu {

enum class EventKind : u8 {
  hardware_interrupt,
  software_interrupt /* INT n */,
  software_exception /* INT3, INTO */,
  exception,
  nmi,
  privileged_software_exception /* INT1 */
};

// DR6 (SDM Vol. 3B 17.2.3).
namespace dr6 {
inline constexpr u64 b0 = 1, b1 = 2, b2 = 4, b3 = 8, breakpoints = 15, bd = 1u << 13, bs = 1u << 14, bt = 1u << 15;
inline constexpr u64 fixed = 0xffff0ff0;
}  // namespace dr6

// Delivers cpu.fault: pushes the frame, or escalates to #DF and then shutdown. cpu.rip is that of the faulting
// instruction (faults) or of the next one (traps). Result: jumped, or stop when the vCPU shut down (activity =
// shutdown).
Outcome deliver_fault(Vcpu& cpu);
// INT n, INT3, INTO, INT1 and interrupts. `return_rip` is pushed. Faults during delivery have been delivered too.
Outcome deliver_event(Vcpu& cpu, EventKind kind, u8 vector, u64 return_rip);

// At an instruction boundary, when attention bits are set or the timer deadline passed: takes INIT, SIPI, NMI, SMP
// requests, the timer and, if IF and no shadow, one interrupt (local APIC first, then ExtINT). Result: next (nothing
// changed the flow), jumped (an event was delivered; rip is its handler), halt (still waiting), stop (attention::kick:
// return to the vCPU loop).
//
// The engine's part: an interrupt shadow ends with the next instruction. While cpu.interrupt_shadow is set and an
// interrupt is pending, the attention bit stays set: execute one instruction, clear the shadow, ask again.
Outcome service_events(Vcpu& cpu);

// To be called by whatever may turn an undeliverable interrupt into a deliverable one: IF going to 1, TPR going down.
// Engines see nothing of a masked interrupt until then.
inline void interrupts_may_be_open(Vcpu& cpu) {
  if (!cpu.interrupt_waiting) [[likely]]
    return;
  cpu.interrupt_waiting = false;
  cpu.attention->fetch_or(attention::interrupt, std::memory_order_relaxed);
}

// Cheap question for a halted vCPU and for engines deciding when to look: would service_events() deliver something now?
bool wakeable(Vcpu& cpu);

// After an instruction that started with TF set, or that hit a data/I-O breakpoint: delivers #DB (trap) with these DR6
// bits. cpu.rip is that of the next instruction. Result as of deliver_fault().
Outcome debug_trap(Vcpu& cpu, u64 dr6_bits);
// Instruction breakpoints armed in DR7 that match cpu.rip, as DR6 bits; 0: none (RF honoured by the caller).
u64 instruction_breakpoints(const Vcpu& cpu);
// RFLAGS.RF is kept only while DR7 arms breakpoints: then the engine looks at every instruction anyway and clears it
// after one. Elsewhere it could change nothing but the image of an interrupt that arrives right after the IRET which
// set it.
inline bool resume_flag_matters(const Vcpu& cpu) { return cpu.debug.dr7 & 0xff; }

}  // namespace trapline::cpu
