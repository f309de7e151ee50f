// From guest addresses to host code, for branches that are no links: a direct-mapped table for each view, which emitted
// code reads, and a small one beside it for what has been displaced.
//
// A slot is chosen by the low bits of the address, and holds - (address + tag), so that a LEA of it with the address and
// the tag gives 0 on a hit. The tag is a small number of the block's mode: addresses in a slot differ by multiples of
// kSlots, so no sum of address and tag is that of another address and tag.
//
// Owned by the vCPU's thread.
#pragma once

#include <array>
#include <bitset>
#include <vector>

#include "base/addr.h"
#include "engine/hostcode/view.h"

namespace trapline::engine::hostcode {

inline constexpr u64 kLongest = 15;  // bytes of an instruction

struct JumpSlot {
  u64 negated = 0;  // - (gva + tag); an empty slot has one that is looked up elsewhere
  u64 entry = 0;
};

// One that has been displaced. Here the sum alone would say too little: the address below, with the tag above, has the
// same.
struct Victim {
  u64 negated = 0;         // as it was in its slot
  u64 negated_linear = 0;  // - gva
  u64 entry = 0;
  u64 unused = 0;
};

class JumpCache {
 public:
  static constexpr u64 kSlots = 131072;
  static constexpr u64 kMask = kSlots - 1;  // of the gva's bits that choose the slot
  static constexpr u64 kBytes = kSlots * sizeof(JumpSlot);
  static constexpr u8 kTags = 127;  // tags are below this
  // The slot of a displaced one is the low byte of the CRC-32C (from 0) of address + tag.
  static constexpr u64 kVictims = 256;
  // Of a slot, from the end of a view's table.
  static constexpr i32 offset(Gva linear) {
    return static_cast<i32>((linear.raw & kMask) * sizeof(JumpSlot)) - static_cast<i32>(kBytes);
  }

  // `end`: where the table of each view ends; kBytes before that are its own, and zero.
  explicit JumpCache(const std::array<u64, kViews>& end);

  const Victim* victims(View v) const { return victims_[static_cast<u8>(v)].data(); }
  // `stable`: mapped by a global page of the upper half, so a switch of address spaces leaves it.
  void put(View v, Gva linear, u8 tag, u64 entry, bool stable);
  u64 find(View v, Gva linear, u8 tag) const;  // 0: it is not there
  void forget(View v, Gva linear, u64 entry);  // if it leads there
  void forget_all();
  void forget_unstable();
  u64 turns() const { return turns_; }  // how often that was
  void forget_unstable_to(Gva page);    // and to what reaches into that page

 private:
  JumpSlot* table(unsigned view) const { return reinterpret_cast<JumpSlot*>(end_[view] - kBytes); }
  void keep_victim(u8 view, u64 index, const JumpSlot& slot);
  void forget_victims();

  std::array<u64, kViews> end_;
  std::vector<u32> stable_[kViews], unstable_[kViews];  // indices of the filled slots; a slot may be in both
  std::bitset<kSlots> last_stable_[kViews];             // what the slot was filled as, last
  std::array<std::array<Victim, kVictims>, kViews> victims_;
  std::bitset<kVictims> victim_[kViews];  // slots that are not empty
  static constexpr u64 kCodePages = 4096;
  u64 turns_ = 0;
  std::bitset<kCodePages> unstable_pages_;  // hashed: pages with entries among the unstable ones
};

}  // namespace trapline::engine::hostcode
