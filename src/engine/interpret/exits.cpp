#include "cpu/code_map.h"
#include "engine/interpret/chain.h"

namespace trapline::engine::interpret {

const Op* fault_at(Vcpu& cpu, const Op* op) {
  cpu.rip = (cpu.rip + op->at) & cpu.linear_mask;
  cpu.retired -= op->left;
  run_of(cpu).leave = Leave::fault;
  return nullptr;
}

const Op* raise_gp_at(Vcpu& cpu, const Op* op) {
  (void)cpu.raise_gp();
  return fault_at(cpu, op);
}

const Op* leave_after(Vcpu& cpu, const Op* op) {
  cpu.rip = (cpu.rip + op->at + op->length) & cpu.linear_mask;
  cpu.retired -= op->left - 1u;
  return nullptr;
}

const Op* leave_jumped(Vcpu&) { return nullptr; }

const Op* unlinked(Vcpu& cpu, const Op* op, unsigned which, bool cross) {
  Run& run = run_of(cpu);
  DecodedBlock* block = block_of(op);
  if (which == 0 && cpu.in_long64() &&
      !canonical(cpu.rip)) {  // faults at the branch (calls have checked before the push)
    cpu.rip -= op->imm;
    return raise_gp_at(cpu, op);
  }
  run.pending_link = &block->link[which];
  run.pending_rip = cpu.rip;
  run.pending_key = block->key;
  run.pending_page = block->gpa.page();
  run.pending_cross = cross;
  return nullptr;
}

bool must_leave(Vcpu& cpu, const Op* op) {
  Run& run = run_of(cpu);
  if (!block_of(op)->fresh()) return true;
  return cpu.attention->load(std::memory_order_relaxed) != 0 || cpu.timer_deadline != run.deadline;
}

}  // namespace trapline::engine::interpret
