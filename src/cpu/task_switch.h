// Hardware task switches through 16- and 32-bit TSSs. Intel SDM Vol. 3A chapter 7.
#pragma once

#include "cpu/descriptor.h"
#include "cpu/fault.h"

namespace trapline::cpu {

enum class TaskSwitch : u8 { jmp, call, interrupt, iret };

enum class Switched : u8 {
  done,   // the new task is in force, cpu.rip its EIP
  trap,   // likewise, and its T bit asks for #DB: debug_trap(cpu, dr6::bt)
  fault,  // cpu.fault set: before the commit point nothing has changed; past it the fault is the new task's
};

// Switches to the TSS `descriptor` that `selector` names; its type, privilege and presence have been checked.
// `next_rip`: where the old task resumes. `error`: code that an exception's task gate pushes on the new stack, or null.
Switched switch_task(Vcpu& cpu, u16 selector, Descriptor descriptor, TaskSwitch why, u64 next_rip,
                     const u32* error = nullptr);

// A task gate's TSS selector (table 7-1 and the pseudo-code of CALL, JMP, INT): global, in the table, an available TSS,
// present. False: cpu.fault set.
bool fetch_tss(Vcpu& cpu, u16 selector, Descriptor& out);

}  // namespace trapline::cpu
