// When every vCPU sleeps with interrupts off: is there anything left that could wake one?
#pragma once

#include "core/vm.h"

namespace trapline::core {

// Asleep until INIT, SIPI or NMI: HLT with interrupts off, or never started.
bool asleep_for_good(const cpu::Vcpu& cpu);

// Of those, the attention bits that it hears: a processor that waits for SIPI drops NMIs, and nobody else takes SIPIs;
// an NMI's handler has the next one wait for its IRET.
u32 what_wakes(const cpu::Vcpu& cpu);

// Is INIT, SIPI or NMI on its way to some vCPU, or will a device send one? All vCPUs are asleep for good and have said
// what wakes them (VcpuUnit::wakers).
bool something_may_wake(Vm& vm);

// Ends the VM and says so.
[[noreturn]] void finish_dead(Vm& vm);

}  // namespace trapline::core
