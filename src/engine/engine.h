// One seam between engines and the rest. Engines differ in speed only.
#pragma once

#include "cpu/vcpu.h"

namespace trapline::engine {

enum class Exit : u8 {
  budget_spent,  // `budget` instructions have retired, or none for long (faults in a row, one REP)
  halted,        // cpu.activity == halted (HLT, MWAIT): nothing to run before the next event
  waiting,       // cpu.activity == wait_for_sipi
  shutdown,      // cpu.activity == shutdown: triple fault
  kicked,        // attention::kick was taken; may be spurious
  breakpoint,    // a debugger's breakpoint or step
};

struct Engine {
  virtual ~Engine() = default;
  // Runs guest code on this thread until something happens that only the vCPU loop can decide. On return `cpu` is
  // exact: each retired instruction is whole, the next has not begun, cpu.retired counts them, x87 state is parked.
  // Budget: at most this many instructions retire (exact in --clock instructions; elsewhere it may overshoot by one
  // block).
  virtual Exit run(cpu::Vcpu& cpu, u64 budget) = 0;
  // Executes exactly one instruction (or delivers one event) whatever TF says.
  virtual Exit step(cpu::Vcpu& cpu) = 0;
  // Forget all decoded code (debugger breakpoints changed, snapshot restored). vCPU thread only.
  virtual void flush() = 0;
};

}  // namespace trapline::engine
