// When every vCPU sleeps with interrupts off: is there anything left that could wake one?
#pragma once

#include "core/vm.h"

namespace trapline::core {

// Asleep until INIT, SIPI or NMI: HLT with interrupts off, or never started.
bool asleep_for_good(const cpu::Vcpu& cpu);

// Is INIT, SIPI or NMI on its way to some vCPU, or will a device send one? All vCPUs are asleep for good.
bool something_may_wake(Vm& vm);

// Ends the VM and says so.
[[noreturn]] void finish_dead(Vm& vm);

}  // namespace trapline::core
