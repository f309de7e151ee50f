// What host code calls C++ for.
#include "engine/hostcode/executor.h"

#include <algorithm>

#include "base/invariant.h"
#include "cpu/code_map.h"
#include "cpu/fpu.h"
#include "engine/common/sensitive_counts.h"

namespace trapline::engine::hostcode {

using cpu::Outcome;

Resume Executor::on_call(void* self, ExitStub* stub, u64 vectors_were_live) {
  auto* e = static_cast<Executor*>(self);
  // The thunk has put back the stack of who entered host code, however deep the guest's is, and has called from there.
  INVARIANT(reinterpret_cast<u64>(__builtin_dwarf_cfa()) == e->region_.state().host_rsp,
            "host code called from another stack than it was entered from");
  const Resume resume = e->call(*stub, vectors_were_live != 0);
  INVARIANT(resume.target == 0 || e->region_.holds(resume.target), "host code is to go on at {:#x}", resume.target);
  if (resume.target) e->region_.synchronize();
  return resume;
}

Resume Executor::call(ExitStub& stub, bool vectors) {
  if (stub.kind == ExitStub::Kind::trap) return trap();
  INVARIANT(stub.block && stub.block->has(stub) && stub.before <= stub.block->count,
            "the exit stub of {:#x} is reached from a block that it is not of", stub.rip);
  sync(stub);
  switch (stub.kind) {
    case ExitStub::Kind::miss: {
      const std::optional<u64> on = policy_.miss(stub);
      return on ? Resume{*on, vectors} : leave(ExitReason::one);
    }
    case ExitStub::Kind::x87:
      cpu::x87_unpark(cpu_);
      return {stub.resume, vectors};
    case ExitStub::Kind::semantic:
    case ExitStub::Kind::vector:
      return stub.by_thunk ? call_for_thunk(stub, vectors) : call_out(stub, vectors);
    case ExitStub::Kind::step:
      return leave(ExitReason::one);
    case ExitStub::Kind::pause:
      region_.state().pauses = State::kPauses;
      cpu_.code->step_aside(cpu_);
      return {stub.resume, vectors};
    case ExitStub::Kind::link:
      return dispatch(&stub);
    case ExitStub::Kind::indirect:
      return indirect(stub);
    case ExitStub::Kind::stale:
      return dispatch(nullptr);
    default:
      return leave(ExitReason::boundary);
  }
}

Resume Executor::call_for_thunk(ExitStub& stub, bool vectors) {
  ExecutorPolicy::Registers before;
  std::copy_n(cpu_.gpr, before.size(), before.begin());
  const Resume resume = call_out(stub, vectors);
  policy_.called_for_thunk(stub, before, resume.target != 0);
  return resume;
}

Resume Executor::call_out(ExitStub& stub, bool vectors) {
  if (block_by_block_ && cpu::find_semantic(stub.called->insn)) return leave(ExitReason::one);
  if (u64* const number = sensitive_count(cpu_, stub.called->insn, Way::called)) ++*number;
  const Outcome outcome = stub.kind == ExitStub::Kind::vector
                              ? VectorUnit::execute(cpu_, stub.called->insn, stub.called->vector)
                              : stub.semantic(cpu_, stub.called->insn);
  switch (outcome) {
    case Outcome::next:
      cpu_.rip = (cpu_.rip + stub.length) & cpu_.linear_mask;
      cpu_.retired++;
      break;
    case Outcome::jumped:
      cpu_.retired++;
      return dispatch(nullptr);
    case Outcome::fault:
      return leave(ExitReason::fault);
    case Outcome::halt:
      cpu_.retired++;
      return leave(ExitReason::halt);
    case Outcome::stop:
      return leave(ExitReason::stop);
    case Outcome::repeat:
      return leave(ExitReason::boundary);
  }
  if (stub.block->uses_x87) cpu::x87_unpark(cpu_);
  if (stub.ends || must_leave() || cache_.code_changed()) return dispatch(nullptr);
  return {stub.resume, vectors};
}

// A near branch to a non-canonical address faults at the branch: it has not happened. The interpreter must not be asked
// to repeat it: CALL has pushed, perhaps over the operand that it read its target from.
Resume Executor::indirect(ExitStub& stub) {
  const u64 target = region_.state().t0;
  if (cpu_.in_long64() && !cpu::canonical(target)) {
    cpu_.gpr[isa::rsp] -= static_cast<u64>(static_cast<i64>(stub.undo_rsp));
    if (counted_) cpu_.retired--;
    cpu_.rip = stub.rip;
    // May fail only if another vCPU takes the stack away meanwhile.
    if (stub.undo_rsp < 0 && cpu_.vendor() == isa::Vendor::amd)
      (void)cpu::write_slow(cpu_, cpu::Seg::ss, Gva{cpu_.gpr[isa::rsp] - 8}, &region_.state().below_rsp, 8);
    (void)cpu_.raise_gp();
    return leave(ExitReason::fault);
  }
  cpu_.rip = target & cpu_.linear_mask;
  return dispatch(nullptr, true);
}

}  // namespace trapline::engine::hostcode
