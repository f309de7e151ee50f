// Which translations still hold: their bytes, and, of stable ones, their mapping.
#include <vector>

#include "base/invariant.h"
#include "base/trace.h"
#include "cpu/code_map.h"
#include "cpu/mmu.h"
#include "engine/hostcode/code_cache.h"

namespace trapline::engine::hostcode {

// Its entry becomes a jump to where the translator is asked anew: so nothing that leads here need be found.
void CodeCache::invalidate(Block& block) {
  INVARIANT(!block.stale, "the block of {} is given up twice", block.key.linear);
  block.stale = true;
  if (block.placement) block.placement->fixed = true;
  redirect(block.entry, block.stale_stub);
  blocks_.erase(block);
  stale_.insert(block);
  if (const auto known = by_origin_.find(Origin{block.key.gpa, block.key.mode});
      known != by_origin_.end() && known->second == &block)
    by_origin_.erase(known);
  jumps_.forget(block.view, block.key.linear, block.entry);
  cpu_.count.blocks_invalidated++;
  TRACE(blocks, "translation of {} is stale", block.key.linear);
}

// Code was overwritten somewhere: gives up the translations of what has changed.
void CodeCache::check_code() {
  const u64 since = epoch_;
  epoch_ = cpu_.code->epoch();
  changed_.clear();
  if (cpu_.code->overwritten(since, epoch_, changed_)) {
    for (const u64 frame : changed_)
      if (const auto known = by_frame_.find(frame); known != by_frame_.end()) check_frame(frame, known->second);
    return;
  }
  for (auto& [frame, code] : by_frame_) check_frame(frame, code);
}

void CodeCache::check_frame(u64 number, Frame& frame) {
  auto& list = frame.blocks;
  if (list.empty()) return;
  // Not by what a block has seen: one that crosses may have been looked at for its other frame.
  const u32 now = cpu_.code->generation(number).load(std::memory_order_acquire);
  if (now == frame.checked) return;
  const bool given_up = static_cast<i32>(cpu_.code->given_up(number) - frame.checked) > 0;
  frame.checked = now;
  std::erase_if(list, [&](Block* b) {
    if (b->stale) return true;
    if (!given_up && mark(*b)) return false;
    invalidate(*b);
    return true;
  });
}

// Mappings of the upper half have changed: are the stable pages still where they were? An address that INVLPG named
// stands for the large page that holds it.
void CodeCache::check_mapping(const Remapped& what) {
  if (what.all || (!what.pages.empty() && huge_stable_)) {
    for (auto& [page, list] : stable_pages_) check_page(page, list);
    return;
  }
  for (const Gva address : what.pages) {
    const auto region = stable_regions_.find(address.raw >> 21);
    if (region == stable_regions_.end()) continue;
    for (const Gva page : region->second) check_page(page, stable_pages_[page]);
  }
}

void CodeCache::check_page(Gva page, Blocks& list) {
  cpu::FetchPage now;
  const bool mapped = cpu::peek_fetch(cpu_, page, &now) && now.global;
  std::erase_if(list, [&](Block* b) {
    if (b->stale) return true;
    const u32 need = b->view == View::user ? cpu::perm::user_fetch : cpu::perm::kernel_fetch;
    if (mapped && now.perms & need && now.gpa.page() == b->frame_of(page)) return false;
    invalidate(*b);
    return true;
  });
}

}  // namespace trapline::engine::hostcode
