#include "engine/interpret/block_cache.h"

#include <sys/mman.h>

#include <algorithm>

#include "base/growing_memory.h"
#include "base/host_refused.h"
#include "base/invariant.h"
#include "base/touch_ahead.h"

namespace trapline::engine::interpret {

namespace {

constexpr u64 kAhead = 64 * KiB;

}  // namespace

BlockCache::BlockCache(u64 bytes) : size_{bytes} {
  void* p = map_huge(kBuckets * sizeof(DecodedBlock*) + bytes);
  if (p == nullptr)
    throw HostRefused{
        fmt::format("no address space for {} bytes of decoded blocks: raise its limit (ulimit -v)", bytes)};
  buckets_ = static_cast<DecodedBlock**>(p);
  region_ = static_cast<u8*>(p) + kBuckets * sizeof(DecodedBlock*);
}

BlockCache::~BlockCache() { munmap(buckets_, kBuckets * sizeof(DecodedBlock*) + size_); }

DecodedBlock* BlockCache::find(Gpa gpa, u32 key) const {
  for (DecodedBlock* b = buckets_[bucket(gpa, key)]; b; b = b->next)
    if (b->gpa == gpa && b->key == key) return b;
  return nullptr;
}

void BlockCache::insert(DecodedBlock* block) {
  DecodedBlock*& head = buckets_[bucket(block->gpa, block->key)];
  block->next = head;
  head = block;
}

void BlockCache::remove(DecodedBlock* block) {
  for (DecodedBlock** at = &buckets_[bucket(block->gpa, block->key)]; *at; at = &(*at)->next) {
    if (*at != block) continue;
    *at = block->next;
    return;
  }
}

void* BlockCache::allocate(u64 bytes) {
  bytes = (bytes + 31) & ~u64{31};
  if (size_ - used_ < bytes) return nullptr;
  u8* p = region_ + used_;
  used_ += bytes;
  if (used_ > populated_) [[unlikely]] {
    const u64 more = std::min((used_ - populated_ + kAhead - 1) & ~(kAhead - 1), size_ - populated_);
    populate(region_ + populated_, more);
    populated_ += more;
    touch_ahead(region_ + populated_, std::min(8 * kAhead, size_ - populated_));
  }
  return p;
}

void BlockCache::clear() {
  std::fill_n(buckets_, kBuckets, nullptr);
  used_ = 0;
}

}  // namespace trapline::engine::interpret
