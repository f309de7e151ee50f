#include "engine/hostcode/code_cache.h"

#include <algorithm>
#include <cstring>

#include "base/invariant.h"
#include "base/trace.h"
#include "cpu/code_map.h"
#include "engine/common/code_names.h"

namespace trapline::engine::hostcode {

namespace {

constexpr u64 kRedirection = 5;  // bytes of the jump that a stale block's entry becomes

}  // namespace

void CodeCache::clear() {
  jumps_.forget_all();
  blocks_.clear();
  stale_.clear();
  by_frame_.clear();
  by_origin_.clear();
  families_.clear();
  placements_.clear();
  stable_pages_.clear();
  stable_regions_.clear();
  huge_stable_ = false;
  all_.clear();
  sites_.clear();
  called_.clear();
  memory_.release();
  kept_ = 0;
}

u64 CodeCache::records() const {
  constexpr u64 kNode = 64;  // of a hash map, with its bucket
  return all_.size() * (sizeof(Block) + kNode) + sites_.size() * sizeof(ExitStub) + called_.size() * sizeof(Called) +
         kept_ + by_frame_.size() * (sizeof(Frame) + kNode) +
         placements_.size() * (sizeof(Placement) + sizeof(Family) + kNode);
}

// -- Finding
Block* CodeCache::find(Gva linear, Gpa gpa, u32 mode) const {
  Block* const block = blocks_.find(Key{linear, gpa, mode});
  return block ? used(block, jumps_.turns()) : crossing(linear, gpa, mode);
}

// The one whose first instruction crosses into the next page, if that is mapped as it was too.
Block* CodeCache::crossing(Gva linear, Gpa gpa, u32 mode) const {
  const u64 offset = linear.page_offset();
  if (offset <= kPageSize - kLongest) return nullptr;
  const auto frame = by_frame_.find(gpa.frame());
  if (frame == by_frame_.end() || !frame->second.starts.test(offset)) return nullptr;
  const cpu::TlbEntry* second = second_page(linear);
  return second ? blocks_.find(Key{linear, gpa, mode, second->gpa}) : nullptr;
}

// How the page behind that of `linear` is mapped for execution. Null: it is not, or there is none.
const cpu::TlbEntry* CodeCache::second_page(Gva linear) const {
  const Gva next{(linear.page().raw + kPageSize) & cpu_.linear_mask};
  return next == Gva{} ? nullptr : cpu::fetch_lookup(cpu_, next);
}

Block* CodeCache::movable(Gpa gpa, u32 mode) const {
  const auto known = by_origin_.find(Origin{gpa, mode});
  return known == by_origin_.end() ? nullptr : known->second;
}

const CodeCache::Starts& CodeCache::starts(u64 frame) const {
  static const Starts none;
  const auto known = by_frame_.find(frame);
  return known == by_frame_.end() ? none : known->second.starts;
}

const Block& CodeCache::at_host(u64 pc) const {
  auto it = std::upper_bound(all_.begin(), all_.end(), pc, [](u64 v, const Block& b) { return v < b.entry; });
  INVARIANT(it != all_.begin(), "a signal at {:#x} in no block", pc);
  const Block& block = *--it;
  INVARIANT(pc < block.end && !block.insns.empty(), "a signal at {:#x} behind the block of {}", pc, block.key.linear);
  return block;
}

// -- Adding
bool CodeCache::mark(Block& block) {
  const u32 offset = static_cast<u32>(block.key.gpa.page_offset());
  const u32 first = std::min<u32>(block.bytes, static_cast<u32>(kPageSize) - offset);
  const u32 generation = cpu_.code->mark_and_number(cpu_, block.key.gpa.frame(), offset, first);
  if (std::memcmp(cpu_.ram->host(block.key.gpa), block.code.data(), first) != 0) return false;
  if (block.crosses()) {
    const u32 rest = block.bytes - first;
    const u32 generation2 = cpu_.code->mark_and_number(cpu_, block.key.gpa2.frame(), 0, rest);
    if (std::memcmp(cpu_.ram->host(block.key.gpa2), block.code.data() + first, rest) != 0) return false;
    block.generation2_seen = generation2;
  }
  block.generation_seen = generation;
  return true;
}

// Its code is in the region.
void CodeCache::admit(Block& block) {
  INVARIANT(block.first_site + block.sites <= sites_.size(), "the block of {} has {} of {} exit stubs",
            block.key.linear, block.sites, sites_.size());
  INVARIANT(region_.holds(block.entry) && region_.holds(block.end - 1), "the code of {} lies elsewhere",
            block.key.linear);
  INVARIANT(block.end - block.entry >= kRedirection, "the block of {} has no room for a jump", block.key.linear);
  INVARIANT(block.stale_stub >= block.cold && block.stale_stub < block.cold_end,
            "what the block of {} leads to once it is stale is not its own", block.key.linear);
  INVARIANT(block.generation && (!block.crosses() || block.generation2), "nobody watches over the bytes of {}",
            block.key.linear);
  INVARIANT(&block == &all_.back() && (all_.size() == 1 || all_[all_.size() - 2].end <= block.entry),
            "the block of {} is out of order", block.key.linear);
  if (block.movable && !block.crosses()) {
    by_origin_[Origin{block.key.gpa, block.key.mode}] = &block;
    join_placement(block);
  }
  blocks_.insert(block);
  Frame& frame = by_frame_[block.key.gpa.frame()];
  if (frame.blocks.empty()) frame.checked = block.generation_seen;
  frame.blocks.push_back(&block);
  frame.starts.set(block.key.gpa.page_offset());
  if (block.crosses() && block.key.gpa2 != block.key.gpa.page()) {
    Frame& second = by_frame_[block.key.gpa2.frame()];
    if (second.blocks.empty()) second.checked = block.generation2_seen;
    second.blocks.push_back(&block);
  }
  if (block.stable) {
    note_stable(block, block.key.linear.page());
    if (block.crosses()) note_stable(block, block.key.linear.page().wrapping_add(kPageSize));
  }
  while (Block* old = stale_.find(block.key)) {
    redirect(old->entry, block.entry);
    if (block.placement) block.placement->fixed = true;
    stale_.erase(*old);
  }
  name_code(Hva{block.entry}, block.end - block.entry, block.key.linear, cpu_.index);
}

void CodeCache::note_stable(Block& block, Gva page) {
  auto& list = stable_pages_[page];
  if (list.empty()) {
    auto& region = stable_regions_[page.raw >> 21];
    if (std::find(region.begin(), region.end(), page) == region.end()) region.push_back(page);
  }
  list.push_back(&block);
  cpu::FetchPage now;
  if (!cpu::peek_fetch(cpu_, page, &now) || now.page_shift > 21) huge_stable_ = true;
}

// -- Linking
// The code at `from` becomes a jump.
void CodeCache::redirect(u64 from, u64 to) {
  u8 jump[kRedirection] = {0xE9};
  const u32 distance = displacement(to, from + kRedirection);
  std::memcpy(jump + 1, &distance, 4);
  region_.patch(from, jump);
}

// May code of `from` go on in `to` without a look at the mapping? They were made for the same mode and rights, and
// either all pages of `to` are pages of `from`, which were those frames when `from` was entered, or they lie on stable
// pages: check_page() watches over their frames, rights and G bits.
bool CodeCache::may_link(const Block& from, u32 mode, const Block& to) const {
  if (!links_ || from.stale || to.stale || mode != to.key.mode) return false;
  if (from.stable && to.stable) return true;
  const Gva page = to.key.linear.page();
  if (from.frame_of(page) != to.key.gpa.page()) return false;
  return !to.crosses() || from.frame_of(page.wrapping_add(kPageSize)) == to.key.gpa2;
}

void CodeCache::link(ExitStub& site, Block& target) {
  INVARIANT(site.kind == ExitStub::Kind::link && site.block, "what is to be linked at {:#x} is no link", site.rip);
  INVARIANT(site.block->has(site), "the link at {:#x} is not of the block of {}", site.rip, site.block->key.linear);
  if (!may_link(*site.block, site.turned ? site.block->turned : site.block->key.mode, target)) return;
  // Rights are the view's, which is part of the mode; nothing but STAC and CLAC leaves a block by another one.
  INVARIANT(site.turned || site.block->view == target.view, "a link from view {} to view {} at {:#x}",
            static_cast<int>(site.block->view), static_cast<int>(target.view), site.rip);
  if (site.block->placement != target.placement) note_link(site, target);
  // A jump into the middle of an instruction, or of a block that has gone, would be found by nobody.
  INVARIANT(blocks_.find(target.key) == &target, "a link at {:#x} to a block of {} that nobody finds", site.rip,
            target.key.linear);
  INVARIANT(site.patch >= site.block->entry && site.patch + 4 <= site.block->end,
            "the link at {:#x} is not of the block of {}", site.patch, site.block->key.linear);
  region_.patch32(site.patch, displacement(target.entry, site.patch + 4));
}

}  // namespace trapline::engine::hostcode
