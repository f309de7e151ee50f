// Where blocks live: one region of memory, filled from its start and emptied as a whole, and a hash table by (gpa,
// key).
#pragma once

#include "engine/interpret/op.h"

namespace trapline::engine::interpret {

class BlockCache {
 public:
  explicit BlockCache(u64 bytes);
  ~BlockCache();
  BlockCache(const BlockCache&) = delete;

  DecodedBlock* find(Gpa gpa, u32 key) const;
  void insert(DecodedBlock* block);
  void remove(DecodedBlock* block);  // from the table; its memory stays until clear(), as links may point to it
  // 32-byte aligned, zeroed or not; null when the region is full.
  void* allocate(u64 bytes);
  void clear();

 private:
  static constexpr u64 kBuckets = 1 << 18;
  static u64 bucket(Gpa gpa, u32 key) { return (gpa.raw ^ gpa.raw >> 14 ^ u64{key} << 9) & (kBuckets - 1); }
  DecodedBlock** buckets_ = nullptr;  // in front of the region
  u8* region_ = nullptr;
  u64 size_ = 0, used_ = 0, populated_ = 0;
};

}  // namespace trapline::engine::interpret
