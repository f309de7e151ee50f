#pragma once

#include <memory_resource>
#include <vector>

#include "engine/hostcode/block.h"

namespace trapline::engine::hostcode {

// Blocks by key: open addressing, with enough beside the pointer that a look-up rarely reads a block in vain. It is on
// the way of every dispatch.
class BlockTable {
 public:
  explicit BlockTable(std::pmr::memory_resource* memory = std::pmr::get_default_resource()) : slots_(kLeast, memory) {}
  Block* find(const Key& key) const {
    for (u64 i = first(key);; i++) {
      const Slot& s = slots_[i & mask()];
      if (s.linear == key.linear && s.block && s.block->key == key) return s.block;
      if (!s.block && !s.erased) return nullptr;
    }
  }
  void insert(Block& block) {
    if (++used_ * 2 > slots_.size()) grow();
    place(block);
  }
  void erase(const Block& block) {
    for (u64 i = first(block.key);; i++) {
      Slot& s = slots_[i & mask()];
      if (s.block == &block) {
        s = {{}, nullptr, true};
        return;
      }
      if (!s.block && !s.erased) return;
    }
  }
  void clear() {
    slots_.assign(kLeast, Slot{});
    used_ = 0;
  }

  u64 slots() const { return slots_.size(); }

 private:
  static constexpr u64 kLeast = 1 << 14;
  struct Slot {
    Gva linear;
    Block* block = nullptr;
    bool erased = false;
  };
  u64 mask() const { return slots_.size() - 1; }
  static u64 first(const Key& k) { return (k.linear.raw ^ k.gpa.raw >> 12 ^ k.mode) * 0x9e3779b97f4a7c15 >> 24; }
  void place(Block& block) {
    u64 i = first(block.key);
    while (slots_[i & mask()].block) i++;
    slots_[i & mask()] = {block.key.linear, &block, false};
  }
  // Or only sheds what was erased, where that is most of it.
  void grow() {
    u64 alive = 0;
    for (const Slot& s : slots_) alive += s.block != nullptr;
    std::pmr::vector<Slot> old(alive * 4 > slots_.size() ? slots_.size() * 2 : slots_.size(), slots_.get_allocator());
    old.swap(slots_);
    used_ = alive + 1;
    for (const Slot& s : old)
      if (s.block) place(*s.block);
  }
  std::pmr::vector<Slot> slots_;
  u64 used_ = 0;  // and erased
};

}  // namespace trapline::engine::hostcode
