// What translated code calls C++ for, but for memory (misses.cpp).
#include "engine/translate/translator.h"

#include "cpu/code_map.h"
#include "cpu/fpu.h"
#include "engine/common/sensitive_counts.h"
#include "engine/hostcode/string_form.h"

namespace trapline::engine::translate {

using cpu::Outcome;

Resume Translator::on_call(void* self, ExitStub* site, u64 vectors_were_live) {
  auto* t = static_cast<Translator*>(self);
  const Resume resume = t->call(*site, vectors_were_live != 0);
  if (resume.target) t->region_->synchronize();
  return resume;
}

Resume Translator::call(ExitStub& site, bool vectors) {
  if (site.kind == ExitStub::Kind::trap) return trap();
  sync(site);
  switch (site.kind) {
    case ExitStub::Kind::miss:
      return miss(site, vectors);
    case ExitStub::Kind::x87:
      cpu::x87_unpark(cpu_);
      return {site.resume, vectors};
    case ExitStub::Kind::semantic:
      if (site.by_thunk) return call_string(site, vectors);
      [[fallthrough]];
    case ExitStub::Kind::vector:
      return call_out(site, vectors);
    case ExitStub::Kind::step:
      return leave(ExitReason::one);
    case ExitStub::Kind::pause:
      region_->state().pauses = State::kPauses;
      cpu_.code->step_aside(cpu_);
      return {site.resume, vectors};
    case ExitStub::Kind::link:
      return dispatch(&site);
    case ExitStub::Kind::indirect:
      return indirect(site);
    case ExitStub::Kind::stale:
      return dispatch(nullptr);
    default:
      return leave(ExitReason::boundary);
  }
}

Resume Translator::call_string(ExitStub& site, bool vectors) {
  StringForm form;
  const bool known = string_form(site.called->insn, cpu_.in_long64(), &form);
  INVARIANT(known, "a thunk for what is no string instruction at {:#x}", site.rip);
  const u64 from = cpu_.gpr[isa::rsi], to = cpu_.gpr[isa::rdi];
  const bool brief = StringThunks::takes(form, cpu_.gpr[isa::rcx]);
  const Resume resume = call_out(site, vectors);
  if (brief && form.reads_source()) fill_for_string(from & cpu_.linear_mask, false);
  if (brief && form.has_destination()) fill_for_string(to & cpu_.linear_mask, !form.compares());
  return resume;
}

Resume Translator::call_out(ExitStub& site, bool vectors) {
  if (block_by_block_ && cpu::find_semantic(site.called->insn)) return leave(ExitReason::one);
  if (u64* const number = sensitive_count(cpu_, site.called->insn, Way::called)) ++*number;
  const Outcome outcome = site.kind == ExitStub::Kind::vector
                              ? VectorUnit::execute(cpu_, site.called->insn, site.called->vector)
                              : site.semantic(cpu_, site.called->insn);
  switch (outcome) {
    case Outcome::next:
      cpu_.rip = (cpu_.rip + site.length) & cpu_.linear_mask;
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
  if (site.block->uses_x87) cpu::x87_unpark(cpu_);
  if (site.ends || must_leave() || cache_->code_changed()) return dispatch(nullptr);
  return {site.resume, vectors};
}

// A near branch to a non-canonical address faults at the branch: it has not happened. The interpreter must not be asked
// to repeat it: CALL has pushed, perhaps over the operand that it read its target from.
Resume Translator::indirect(ExitStub& site) {
  const u64 target = region_->state().t0;
  if (cpu_.in_long64() && !cpu::canonical(target)) {
    cpu_.gpr[isa::rsp] -= static_cast<u64>(static_cast<i64>(site.undo_rsp));
    if (counted_) cpu_.retired--;
    cpu_.rip = site.rip;
    // May fail only if another vCPU takes the stack away meanwhile.
    if (site.undo_rsp < 0 && cpu_.vendor() == isa::Vendor::amd)
      (void)cpu::write_slow(cpu_, cpu::Seg::ss, cpu_.gpr[isa::rsp] - 8, &region_->state().below_rsp, 8);
    (void)cpu_.raise_gp();
    return leave(ExitReason::fault);
  }
  cpu_.rip = target & cpu_.linear_mask;
  return dispatch(nullptr, true);
}

}  // namespace trapline::engine::translate
