// Handlers that call out of the threaded code: semantics, vector instructions; and those that are no instruction.
#include "cpu/debug_port.h"
#include "engine/interpret/build.h"

namespace trapline::engine::interpret {

namespace {

// cpu.rip and cpu.retired are those before `op`.
[[gnu::noinline]] const Op* conclude(Vcpu& cpu, const Op* op, Outcome outcome) {
  Run& run = run_of(cpu);
  switch (outcome) {
    case Outcome::next:
      cpu.rip = (cpu.rip + op->length) & cpu.linear_mask;
      cpu.retired++;
      break;
    case Outcome::jumped:
      cpu.retired++;
      break;
    case Outcome::fault:
      run.leave = Leave::fault;
      break;
    case Outcome::halt:
      cpu.retired++;
      run.leave = Leave::halt;
      break;
    case Outcome::stop:
      run.leave = Leave::stop;
      break;
    case Outcome::repeat:
      break;
  }
  return nullptr;
}

inline void exact(Vcpu& cpu, const Op* op) {
  cpu.rip = (cpu.rip + op->at) & cpu.linear_mask;
  cpu.retired -= op->left;
}

inline bool resume(Vcpu& cpu, const Op* op) {
  cpu.rip = (cpu.rip - op->at) & cpu.linear_mask;
  cpu.retired += op->left;
  return !must_leave(cpu, op);
}

}  // namespace

const Op* run_semantic(Vcpu& cpu, const Op* op) {
  exact(cpu, op);
  const Extra& extra = extra_of(op);
  return conclude(cpu, op, extra.semantic(cpu, extra.insn));
}

const Op* run_inner_semantic(Vcpu& cpu, const Op* op) {
  exact(cpu, op);
  const Extra& extra = extra_of(op);
  const Outcome outcome = extra.semantic(cpu, extra.insn);
  if (outcome != Outcome::next) [[unlikely]]
    return conclude(cpu, op, outcome);
  if (!resume(cpu, op)) [[unlikely]]
    return leave_after(cpu, op);
  TRAPLINE_NEXT(cpu, op);
}

const Op* run_vector(Vcpu& cpu, const Op* op) {
  exact(cpu, op);
  const Extra& extra = extra_of(op);
  const Outcome outcome = VectorUnit::execute(cpu, extra.insn, extra.vector);
  if (outcome != Outcome::next) [[unlikely]]
    return conclude(cpu, op, outcome);
  if (!resume(cpu, op)) [[unlikely]]
    return leave_after(cpu, op);
  TRAPLINE_NEXT(cpu, op);
}

const Op* set_scratch(Vcpu& cpu, const Op* op) {
  cpu.scratch = get<u64>(cpu, op->base) + op->imm;
  TRAPLINE_NEXT(cpu, op);
}

const Op* count_execution(Vcpu& cpu, const Op* op) {
  ++*reinterpret_cast<u64*>(op->imm);
  TRAPLINE_NEXT(cpu, op);
}

const Op* stop_at_breakpoint(Vcpu& cpu, const Op* op) {
  const Gva linear = cpu.linear(Seg::cs, cpu.rip + op->at);
  if (cpu.debugger && cpu.debugger->breakpoint_at(linear)) {
    exact(cpu, op);
    run_of(cpu).leave = Leave::breakpoint;
    return nullptr;
  }
  TRAPLINE_NEXT(cpu, op);
}

const Op* end_block(Vcpu& cpu, const Op* op) {
  cpu.rip = (cpu.rip + op->at) & cpu.linear_mask;
  return nullptr;
}

}  // namespace trapline::engine::interpret
