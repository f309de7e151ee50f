#include "engine/hostcode/jump_cache.h"

#include "base/invariant.h"

namespace trapline::engine::hostcode {

namespace {

// No address and tag find an empty slot. A 0 is found by an address of minus the tag, which belongs into the first slot
// or one of the last; those have a value that no tag would make of an address of theirs.
constexpr bool needs_value(u64 index) { return index == 0 || index > JumpCache::kSlots - 1 - JumpCache::kTags; }
JumpSlot empty(u64 index) { return {needs_value(index) ? 0 - (index + JumpCache::kSlots / 2) : 0, 0}; }

// As emitted code computes it.
[[gnu::target("sse4.2")]] u64 victim_index(u64 address_and_tag) {
  return __builtin_ia32_crc32di(0, address_and_tag) & (JumpCache::kVictims - 1);
}
// 0 belongs into slot 0, 1 elsewhere.
Victim empty_victim(u64 index) { return {.negated = index == 0 ? ~u64{0} : 0}; }

}  // namespace

JumpCache::JumpCache(const std::array<u64, kViews>& end) : end_{end} {
  for (unsigned v = 0; v < kViews; v++) {
    for (u64 i = 0; i < kVictims; i++) victims_[v][i] = empty_victim(i);
    for (u64 i = 0; i < kSlots; i = i == 0 ? kSlots - kTags : i + 1) table(v)[i] = empty(i);
  }
}

// A slot overwritten by the other kind is in both lists: clearing it too early costs a look-up.
void JumpCache::put(View v, Gva linear, u8 tag, u64 entry, bool stable) {
  INVARIANT(tag < kTags && entry != 0, "an entry for {} with tag {} that nobody would find", linear, tag);
  const u8 view = static_cast<u8>(v);
  const u64 i = linear.raw & kMask;
  JumpSlot& slot = table(view)[i];
  const JumpSlot now{0 - linear.raw - tag, entry};
  // Whoever comes back from C++ puts what is there already.
  if (slot.negated == now.negated && slot.entry == entry && last_stable_[view].test(i) == stable) return;
  last_stable_[view].set(i, stable);
  std::vector<u32>& list = (stable ? stable_ : unstable_)[view];
  list.push_back(static_cast<u32>(i));
  if (!stable)
    for (const u64 end : {linear.raw, linear.raw + kLongest - 1}) unstable_pages_.set(end >> 12 & (kCodePages - 1));
  if (slot.entry && slot.negated != now.negated) keep_victim(view, i, slot);
  slot = now;
  if (list.size() > 4 * kSlots) forget_all();
}

u64 JumpCache::find(View v, Gva linear, u8 tag) const {
  if (tag >= kTags) return 0;
  const JumpSlot& s = table(static_cast<u8>(v))[linear.raw & kMask];
  if (s.negated == 0 - linear.raw - tag) return s.entry;
  const Victim& victim = victims(v)[victim_index(linear.raw + tag)];
  return victim.negated == 0 - linear.raw - tag && victim.negated_linear == 0 - linear.raw ? victim.entry : 0;
}

void JumpCache::forget(View v, Gva linear, u64 entry) {
  const u8 view = static_cast<u8>(v);
  const u64 i = linear.raw & kMask;
  if (JumpSlot& s = table(view)[i]; s.entry == entry) s = empty(i);
  if (victim_[view].none()) return;
  for (u64 k = 0; k < kVictims; k++)
    if (victims_[view][k].entry == entry) victims_[view][k] = empty_victim(k);
}

void JumpCache::keep_victim(u8 view, u64 index, const JumpSlot& slot) {
  const u64 sum = 0 - slot.negated, tag = (sum - index) & kMask;
  const u64 i = victim_index(sum);
  victims_[view][i] = {.negated = slot.negated, .negated_linear = tag - sum, .entry = slot.entry};
  victim_[view].set(i);
}

void JumpCache::forget_victims() {
  for (unsigned v = 0; v < kViews; v++) {
    if (victim_[v].none()) continue;
    for (u64 i = 0; i < kVictims; i++) victims_[v][i] = empty_victim(i);
    victim_[v].reset();
  }
}

void JumpCache::forget_all() {
  for (unsigned v = 0; v < kViews; v++) {
    for (const u32 i : stable_[v]) table(v)[i] = empty(i);
    stable_[v].clear();
  }
  forget_unstable();
}

void JumpCache::forget_unstable() {
  turns_++;
  for (unsigned v = 0; v < kViews; v++) {
    for (const u32 i : unstable_[v]) table(v)[i] = empty(i);
    unstable_[v].clear();
  }
  unstable_pages_.reset();
  forget_victims();
}

void JumpCache::forget_unstable_to(Gva page) {
  if (!unstable_pages_.test(page.raw >> 12 & (kCodePages - 1))) return;
  forget_victims();
  for (unsigned v = 0; v < kViews; v++) {
    for (const u32 i : unstable_[v]) {
      // Its tag is unknown, and its first instruction may end in the page: some go in vain.
      JumpSlot& s = table(v)[i];
      const u64 least = 0 - s.negated - kTags, most = 0 - s.negated + kLongest;
      if (page.raw - (least & kPageMask) <= (most & kPageMask) - (least & kPageMask)) s = empty(i);
    }
  }
}

}  // namespace trapline::engine::hostcode
