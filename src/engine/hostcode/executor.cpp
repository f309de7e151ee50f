// Into translated code, on to the next block, and out; and the accounts that are exact outside of it.
#include "engine/hostcode/executor.h"

#include <algorithm>
#include <utility>

#include "base/invariant.h"

namespace trapline::engine::hostcode {

using cpu::Vcpu;

namespace {

u64 saturated(u64 a, u64 b) { return a + b < a ? ~u64{0} : a + b; }

}  // namespace

Executor::Executor(Vcpu& cpu, Region& region, CodeCache& cache, JumpCache& jumps, Remapped& remapped,
                   const RunningMode& now, ExecutorPolicy& policy, const EngineOptions& options)
    : cpu_{cpu},
      region_{region},
      cache_{cache},
      jumps_{jumps},
      remapped_{remapped},
      now_{now},
      policy_{policy},
      counted_{options.count_instructions},
      fills_jump_cache_{!options.debug.no_jump_cache} {
  trap_stub_.kind = ExitStub::Kind::trap;
  hear_signals();
}

Executor::~Executor() { leave_thread(); }

void Executor::emit_thunks(Emitter& out) {
  thunks_ = hostcode::emit_thunks(out, cpu_, region_.state(), on_call, this, &trap_stub_);
}

bool Executor::go_block_by_block() {
  jumps_.forget_all();
  block_by_block_ = counted_;
  return block_by_block_;
}

// The block for cpu.rip if there is one and its page is mapped as it was; puts it into the jump cache.
Block* Executor::at_rip() {
  const Gva linear{cpu_.rip & cpu_.linear_mask};
  const cpu::TlbEntry* page = cpu::fetch_lookup(cpu_, linear);
  if (!page) return nullptr;
  const Gpa gpa = page->gpa.wrapping_add(linear.page_offset());
  Block* block = cache_.find(linear, gpa, now_.mode);
  if (!block) return nullptr;
  INVARIANT(!block->stale && block->view == now_.view, "the block of {}, of view {}, is found in view {}", linear,
            static_cast<int>(block->view), static_cast<int>(now_.view));
  if (!block_by_block_ && fills_jump_cache_) jumps_.put(block->view, linear, now_.tag, block->entry, block->stable);
  return block;
}

// The pointers of the last x87 instruction that has run inline before the instruction number `before`.
void Executor::note_x87(const Block& block, u16 before) {
  for (const Block::Pointer& p : block.x87)
    if (p.index < before) {
      cpu_.x87.fip = p.rip;
      cpu_.x87.fcs = cpu_.segment(cpu::Seg::cs).selector;
      if (p.all) cpu_.x87.fop = p.fop;
      if (p.segment != Block::Pointer::kNoMemory) cpu_.x87.fds = cpu_.seg[p.segment].selector;
    }
}

// cpu.retired and cpu.rip at `stub`.
void Executor::sync(const ExitStub& stub) {
  cpu_.rip = stub.rip;
  // Before a block's ways out its code has stored FIP itself.
  const bool inside = stub.kind == ExitStub::Kind::miss || stub.kind == ExitStub::Kind::semantic ||
                      stub.kind == ExitStub::Kind::vector || stub.kind == ExitStub::Kind::step;
  if (inside) note_x87(*stub.block, stub.before);
  if (!counted_) return;
  INVARIANT(region_.state().left <= base_left_, "the budget has grown by {} instructions at {:#x}",
            region_.state().left - base_left_, stub.rip);
  const u64 counted = base_left_ - region_.state().left;
  const u64 ahead = stub.block && stub.kind != ExitStub::Kind::limit && stub.kind != ExitStub::Kind::stale
                        ? static_cast<u64>(stub.block->count - stub.before)
                        : 0;
  cpu_.retired = base_retired_ + counted - ahead;
}

// What cpu.retired says now is the truth.
void Executor::rebase() {
  base_retired_ = cpu_.retired;
  const u64 left = limit_ > cpu_.retired ? limit_ - cpu_.retired : 0;
  base_left_ = region_.state().left = kLeftBias + std::min(left, kLeftBias - 1);
}

bool Executor::must_leave() const {
  return cpu_.attention->load(std::memory_order_relaxed) != 0 || cpu_.timer_deadline != deadline_ ||
         cpu_.interrupt_shadow || (cpu_.sys_flags & cpu::flag::tf) || (cpu_.debug.dr7 & 0xff);
}

// Where the jump cache or a block says that host code begins.
u64 Executor::checked_entry(u64 entry) const {
  INVARIANT(region_.holds_hot(entry, code_start_), "{:#x}, where host code is to be entered, is no block's", entry);
  return entry;
}

Resume Executor::leave(ExitReason left) {
  left_ = left;
  return {0, 0};
}

// cpu is exact: goes on with the translation of what is at cpu.rip, or leaves. `same_mode`: a near branch came here.
Resume Executor::dispatch(ExitStub* stub, bool same_mode) {
  if (block_by_block_ || must_leave() || cpu_.retired >= limit_) return leave(ExitReason::boundary);
  if ((!stub && !same_mode) || cache_.code_changed() || remapped_.any()) {
    // After anything but a plain jump the mode may be another.
    if (!policy_.follow_mode()) return leave(ExitReason::boundary);
    heed_changes();
  }
  u64 entry = jumps_.find(now_.view, Gva{cpu_.rip}, now_.tag);
  Block* block = nullptr;
  if (!entry || stub) {
    block = at_rip();
    if (!block) return leave(ExitReason::boundary);
    entry = block->entry;
  }
  if (stub && block && block->key.mode == now_.mode) cache_.link(*stub, *block);
  rebase();
  return {checked_entry(entry), 0};
}

void Executor::heed_changes() {
  if (cache_.code_changed()) cache_.check_code();
  if (remapped_.any()) cache_.check_mapping(std::exchange(remapped_, {}));
}

ExitReason Executor::run(u64 limit) {
  u64 entry = counted_ ? 0 : jumps_.find(now_.view, Gva{cpu_.rip}, now_.tag);
  if (!entry) {
    const Block* const block = at_rip();
    if (!block) return ExitReason::nothing;
    if (counted_ && saturated(cpu_.retired, block->count) > limit) return ExitReason::one;
    entered_ = block;
    entry = block->entry;
  }
  adopt_thread();
  limit_ = counted_ ? limit : ~u64{0};
  if (!counted_) timer_.arm(cpu_);
  deadline_ = cpu_.timer_deadline;
  rebase();
  left_ = ExitReason::nothing;
  region_.synchronize();
  reinterpret_cast<EnterThunk>(thunks_.enter)(checked_entry(entry));
  return left_;
}

}  // namespace trapline::engine::hostcode
