// From block to block without the run loop: direct branches through links, indirect ones through the jump cache.
//
// A link inside one page needs no translation check: nothing that could change the mapping runs inside a chain (what
// can ends it). Every entry checks that the target's code is unchanged, that attention is 0 and that the limit
// is not passed.
#pragma once

#include "engine/interpret/op.h"

namespace trapline::engine::interpret {

using cpu::canonical;

// cpu.rip is that of `b`'s first byte, and its translation has been checked.
[[gnu::always_inline]] inline const Op* enter(Vcpu& cpu, Run& run, DecodedBlock* b) {
  const u64 retired = cpu.retired + b->count;
  if (b->generation->load(std::memory_order_relaxed) != b->generation_seen) [[unlikely]]
    return nullptr;
  if (retired > run.limit) [[unlikely]]
    return nullptr;
  if (cpu.attention->load(std::memory_order_relaxed) != 0) [[unlikely]]
    return nullptr;
  cpu.trail.enter(cpu.retired, cpu.rip);
  if (b->heat == 0) [[unlikely]]
    return nullptr;
  b->heat--;
  cpu.retired = retired;
  const Op* first = b->first();
  TRAPLINE_DISPATCH(cpu, first);
}

// Does the fetch TLB map the code at `linear` to the frame that holds `b`, with permission?
[[gnu::always_inline]] inline bool maps(const Vcpu& cpu, Gva linear, const DecodedBlock* b) {
  const cpu::TlbEntry& e = cpu.tlb->fetch[linear.raw >> 63][linear.raw >> 12 & (cpu::Tlb::kFetchEntries - 1)];
  return e.tag == linear.page() && (e.perm & cpu.need_fetch) && e.gpa == b->gpa.page();
}

// To `distance` from the start of op's block. Flat code segments only.
template <bool Cross>
[[gnu::always_inline]] inline const Op* chain(Vcpu& cpu, const Op* op, unsigned which, u64 distance) {
  const u64 rip = (cpu.rip + distance) & cpu.linear_mask;
  DecodedBlock* b = block_of(op)->link[which];
  cpu.rip = rip;
  if (!b) [[unlikely]]
    return unlinked(cpu, op, which, Cross);
  if constexpr (Cross)
    if (!maps(cpu, Gva{rip}, b)) [[unlikely]]
      return unlinked(cpu, op, which, Cross);
  return enter(cpu, run_of(cpu), b);
}

[[gnu::always_inline]] inline const Op* jump_to(Vcpu& cpu, u64 rip) {
  Run& run = run_of(cpu);
  const Gva linear{rip};  // the code segment is flat
  const JumpEntry& e = run.jump[jump_slot(linear)];
  cpu.rip = rip;
  if (e.linear != linear || e.block->key != run.key || !maps(cpu, linear, e.block)) [[unlikely]]
    return leave_jumped(cpu);
  return enter(cpu, run, e.block);
}

}  // namespace trapline::engine::interpret
