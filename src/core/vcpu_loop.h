// What a vCPU does between engine exits: runs, sleeps in halts, answers the monitor, dies.
#pragma once

namespace trapline::core {

struct Vm;
struct VcpuUnit;

// --clock real: the life of one vCPU, on a thread of its own.
[[noreturn]] void run_vcpu(VcpuUnit& unit);

// --clock instructions: all vCPUs in turns on one thread. Nothing outside the guest decides anything: a turn ends after
// a fixed number of instructions, exactly at the chipset's next event, or in a halt; a VM that is all halted skips to
// its next timer.
[[noreturn]] void run_in_turns(Vm& vm);

// A triple fault ends the VM with a crash report; or, where a firmware is there to begin again, resets it, as a PC does.
[[noreturn]] void end_of_triple_fault(VcpuUnit& unit);

}  // namespace trapline::core
