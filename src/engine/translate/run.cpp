// Into translated code, on to the next block, and out; and the accounts that are exact outside of it.
#include "engine/translate/translator.h"

#include <algorithm>
#include <utility>

#include "base/invariant.h"
#include "engine/common/sensitive_counts.h"
#include "engine/translate/mode_bits.h"

namespace trapline::engine::translate {

using cpu::Vcpu;

namespace {

u64 saturated(u64 a, u64 b) { return a + b < a ? ~u64{0} : a + b; }

}  // namespace

// The block for cpu.rip if there is one and its page is mapped as it was; puts it into the jump cache.
Block* Translator::at_rip() {
  const u64 linear = cpu_.rip & cpu_.linear_mask;
  const cpu::TlbEntry* page = cpu::fetch_lookup(cpu_, linear);
  if (!page) return nullptr;
  const u64 gpa = page->gpa | (linear & (kPageSize - 1));
  Block* block = cache_->find(linear, gpa, mode_);
  if (!block) return nullptr;
  if (!block_by_block_ && !options_.debug.no_jump_cache)
    views_->jumps().put(block->view, linear, tag_, block->entry, block->stable);
  return block;
}

// The pointers of the last x87 instruction that has run inline before the instruction number `before`.
void Translator::note_x87(const Block& block, u16 before) {
  for (const Block::Pointer& p : block.x87)
    if (p.index < before) {
      cpu_.x87.fip = p.rip;
      cpu_.x87.fcs = cpu_.seg[static_cast<u8>(cpu::Seg::cs)].selector;
      if (p.all) cpu_.x87.fop = p.fop;
      if (p.segment != Block::Pointer::kNoMemory) cpu_.x87.fds = cpu_.seg[p.segment].selector;
    }
}

// cpu.retired and cpu.rip at `site`.
void Translator::sync(const ExitStub& site) {
  cpu_.rip = site.rip;
  // Before a block's ways out its code has stored FIP itself.
  const bool inside = site.kind == ExitStub::Kind::miss || site.kind == ExitStub::Kind::semantic ||
                      site.kind == ExitStub::Kind::vector || site.kind == ExitStub::Kind::step;
  if (inside) note_x87(*site.block, site.before);
  if (!counted_) return;
  const u64 counted = base_left_ - region_->state().left;
  const u64 ahead = site.block && site.kind != ExitStub::Kind::limit && site.kind != ExitStub::Kind::stale
                        ? static_cast<u64>(site.block->count - site.before)
                        : 0;
  cpu_.retired = base_retired_ + counted - ahead;
}

// What cpu.retired says now is the truth.
void Translator::rebase() {
  base_retired_ = cpu_.retired;
  const u64 left = limit_ > cpu_.retired ? limit_ - cpu_.retired : 0;
  base_left_ = region_->state().left = kLeftBias + std::min(left, kLeftBias - 1);
}

bool Translator::must_leave() const {
  return cpu_.attention->load(std::memory_order_relaxed) != 0 || cpu_.timer_deadline != deadline_ ||
         cpu_.interrupt_shadow || (cpu_.sys_flags & cpu::flag::tf) || (cpu_.debug.dr7 & 0xff);
}

Resume Translator::leave(ExitReason left) {
  left_ = left;
  return {0, 0};
}

// A signal ended an instruction of a block: the interpreter executes it and raises what is to be raised.
Resume Translator::trap() {
  const u64 pc = region_->state().trap_pc;
  const Block& block = cache_->at_host(pc);
  const u32 at = static_cast<u32>(pc - block.entry);
  u16 index = 0;
  while (index + 1u < block.insns.size() && block.insns[index + 1u].host <= at) index++;
  note_x87(block, index);
  if (counted_) cpu_.retired = base_retired_ + (base_left_ - region_->state().left) - (block.count - index);
  cpu_.rip = block.key.linear + block.insns[index].guest;
  if (sensitive_counts && *reinterpret_cast<const u8*>(pc) == hostcode::kTrap) [[unlikely]]
    count_trapped(block.key.gpa + block.insns[index].guest);
  return leave(ExitReason::one);
}

// The interpreter will count it as its own: that is made up for.
void Translator::count_trapped(u64 gpa) {
  const u64 left = kPageSize - (gpa & (kPageSize - 1));
  isa::Insn insn;
  if (isa::decode(reinterpret_cast<const u8*>(cpu_.ram->host(Gpa{gpa})), left, cpu_.code_size(), cpu_.vendor(), insn) !=
      isa::DecodeStatus::ok)
    return;
  if (u64* const trapped = sensitive_count(cpu_, insn, Way::trapped))
    ++*trapped, --*sensitive_count(cpu_, insn, Way::interpreted);
}

// cpu is exact: goes on with the translation of what is at cpu.rip, or leaves. `same_mode`: a near branch came here.
Resume Translator::dispatch(ExitStub* site, bool same_mode) {
  if (block_by_block_ || must_leave() || cpu_.retired >= limit_) return leave(ExitReason::boundary);
  if ((!site && !same_mode) || cache_->code_changed() || views_->remapped.any()) {
    // After anything but a plain jump the mode may be another.
    const bool was_user = view_ == View::user;
    if (!turn()) return leave(ExitReason::boundary);
    if (user_gate_ && was_user && view_ != View::user) user_gate_->left_user();
    if (user_gate_ && view_ == View::user && user_gate_->wants_user()) return leave(ExitReason::boundary);
    if (cache_->code_changed()) cache_->check_code();
    if (views_->remapped.any()) cache_->check_mapping(std::exchange(views_->remapped, {}));
  }
  u64 entry = views_->jumps().find(view_, cpu_.rip, tag_);
  Block* block = nullptr;
  if (!entry || site) {
    block = at_rip();
    if (!block) return leave(ExitReason::boundary);
    entry = block->entry;
  }
  if (site && block && block->key.mode == mode_) cache_->link(*site, *block);
  rebase();
  return {entry, 0};
}

ExitReason Translator::run(Vcpu& cpu, u32 key, u64 limit) {
  if (!translatable(cpu, key)) return ExitReason::nothing;
  if (cache_->code_changed()) cache_->check_code();
  if (views_->remapped.any()) cache_->check_mapping(std::exchange(views_->remapped, {}));
  View view;
  const u32 mode = mode_of(key, &view);
  set_mode(mode, view);
  u64 entry = counted_ ? 0 : views_->jumps().find(view, cpu.rip, tag_);
  if (!entry) {
    Block* block = at_rip();
    if (!block) return ExitReason::nothing;
    if (counted_ && saturated(cpu.retired, block->count) > limit) return ExitReason::one;
    entered_ = block;
    entry = block->entry;
  }
  adopt_thread();
  limit_ = counted_ ? limit : ~u64{0};
  if (!counted_) timer_.arm(cpu_);
  deadline_ = cpu.timer_deadline;
  set_view(view);
  rebase();
  left_ = ExitReason::nothing;
  region_->synchronize();
  reinterpret_cast<EnterThunk>(thunks_.enter)(entry);
  return left_;
}

}  // namespace trapline::engine::translate
