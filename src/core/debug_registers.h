// One vCPU's registers as the debugger sees them.
#pragma once

#include "channel/debug_mailbox.h"
#include "cpu/vcpu.h"

namespace trapline::core {

Gva linear_pc(const cpu::Vcpu& cpu);
channel::DebugRegisters read_registers(const cpu::Vcpu& cpu);
// General registers, PC, flags, FS and GS base, CR2, x87 and vector registers. The rest (selectors, control registers,
// what depends on them) changes by instructions only. The vCPU must be paused, its x87 state parked.
void write_registers(cpu::Vcpu& cpu, const channel::DebugRegisters& r);

}  // namespace trapline::core
