// Translations that are taken along to another linear page, all of a placement at once.
#include "engine/hostcode/placement.h"

#include <algorithm>

#include "base/invariant.h"
#include "base/trace.h"
#include "engine/common/code_names.h"
#include "engine/hostcode/code_cache.h"
#include "engine/hostcode/memory_lowering.h"

namespace trapline::engine::hostcode {

// `block` is movable, and new.
void CodeCache::join_placement(Block& block) {
  const Gva page = block.key.linear.page();
  Family& family = families_[Origin{block.key.gpa.page(), block.key.mode}];
  const auto known = std::find_if(family.placements.begin(), family.placements.end(),
                                  [&](const Placement* p) { return p->page == page; });
  Placement& all = known != family.placements.end() ? **known : placements_.emplace_back(page);
  if (known == family.placements.end()) family.placements.push_back(&all);
  all.used = jumps_.turns();
  all.blocks.push_back(&block);
  block.placement = &all;
  for (const Fixup& f : block.fixups) {
    if (!f.names_linear()) continue;
    const i64 distance = static_cast<i64>(f.value + block.moved_by - page.raw);
    u64& reach = distance < 0 ? all.below : all.above;
    reach = std::max(reach, static_cast<u64>(distance < 0 ? -distance : distance));
  }
}

// A link across the border of a placement is about to be made.
void CodeCache::note_link(const ExitStub& stub, const Block& target) {
  if (target.placement) target.placement->into.push_back(stub.block);
  if (!stub.block->placement) return;
  auto& out = stub.block->placement->out;
  const auto same = [&](const Placement::Link& l) { return l.patch == stub.patch; };
  if (std::none_of(out.begin(), out.end(), same)) out.push_back({stub.patch, region_.read32(stub.patch)});
}

void CodeCache::settle(Gva linear, Gpa gpa, u32 mode, const MemoryLowering& memory) {
  const auto known = families_.find(Origin{gpa.page(), mode});
  if (known == families_.end()) return;
  Family& family = known->second;
  const Gva page = linear.page();
  for (const Placement* p : family.placements)
    if (p->page == page) return;
  if (const auto was = std::find(family.left.begin(), family.left.end(), page); was != family.left.end()) {
    *was = Gva{};
    family.most = std::min(family.most * 2, Family::kMany);
  }
  if (family.placements.size() < family.most) return;
  std::erase_if(family.placements, [](const Placement* p) {
    return p->fixed && std::all_of(p->blocks.begin(), p->blocks.end(), [](const Block* b) { return b->stale; });
  });
  Placement* idle = nullptr;
  for (Placement* p : family.placements)
    if (!p->fixed && p->used < jumps_.turns() && (!idle || p->used < idle->used)) idle = p;
  if (!idle) return;
  const Gva before = idle->page;
  if (take_along(*idle, page, memory)) family.left[family.next_left++ % family.left.size()] = before;
}

bool CodeCache::take_along(Placement& all, Gva page, const MemoryLowering& memory) {
  if (!movable_to(Gva{page.raw - all.below}) || !movable_to(Gva{page.raw + all.above})) return false;
  const u64 by = page - all.page;
  for (const Block* b : all.blocks) {
    INVARIANT(!b->stale && b->placement == &all && b->key.linear.page() == all.page,
              "the block of {} is among those that move from {}", b->key.linear, all.page);
    Key there = b->key;
    there.linear = there.linear.wrapping_add(by);
    if (blocks_.find(there)) return false;
  }
  TRACE(blocks, "{} translations of {} are taken along to {}", all.blocks.size(), all.page, page);
  for (Block* b : all.into)
    if (!b->stale) invalidate(*b);
  for (const Placement::Link& l : all.out) region_.patch32(l.patch, l.before);
  all.into.clear();
  all.out.clear();
  jumps_.forget_unstable_to(all.page);
  for (Block* b : all.blocks) give_address(*b, by, memory);
  all.page = page;
  all.used = jumps_.turns();
  return true;
}

// Its code stays where it is.
void CodeCache::give_address(Block& block, u64 by, const MemoryLowering& memory) {
  blocks_.erase(block);
  block.key.linear = block.key.linear.wrapping_add(by);
  block.moved_by += by;
  blocks_.insert(block);
  for (Block::Pointer& p : block.x87) p.rip += by;
  for (u64 i = 0; i < block.sites; i++) sites_[block.first_site + i].rip += by;
  for (const auto& [fixups, code] : {std::pair{block.fixups, block.entry}, std::pair{block.cold_fixups, block.cold}})
    for (const Fixup& f : fixups)
      if (f.names_linear()) give_field(code + f.at, f, block.moved_by, memory);
  name_code(Hva{block.entry}, block.end - block.entry, block.key.linear, cpu_.index);
}

void CodeCache::give_field(u64 place, const Fixup& f, u64 moved_by, const MemoryLowering& memory) {
  const FieldValue now = value_of(f, Gva{f.value + moved_by}, memory);
  region_.patch(place, {reinterpret_cast<const u8*>(&now.value), now.bytes});
}

// What a field that names a linear address holds for this one.
CodeCache::FieldValue CodeCache::value_of(const Fixup& f, Gva linear, const MemoryLowering& memory) {
  switch (f.kind) {
    case Fixup::Kind::look_up:
    case Fixup::Kind::look_up_w:
      return {memory.constant(f, linear), 8};
    case Fixup::Kind::jump:
      return {static_cast<u32>(JumpCache::offset(linear)), 4};
    case Fixup::Kind::jump_entry:
      return {static_cast<u32>(JumpCache::offset(linear) + 8), 4};
    default:
      return {linear.raw, 8};
  }
}

}  // namespace trapline::engine::hostcode
