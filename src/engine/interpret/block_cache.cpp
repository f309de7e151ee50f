#include "engine/interpret/block_cache.h"

#include <sys/mman.h>

#include <algorithm>

#include "base/host_refused.h"
#include "base/invariant.h"

namespace trapline::engine::interpret {

BlockCache::BlockCache(u64 bytes) : buckets_(kBuckets), size_{bytes} {
  void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED)
    throw HostRefused{
        fmt::format("no address space for {} bytes of decoded blocks: raise its limit (ulimit -v)", bytes)};
  region_ = static_cast<u8*>(p);
}

BlockCache::~BlockCache() { munmap(region_, size_); }

Block* BlockCache::find(u64 gpa, u32 key) const {
  for (Block* b = buckets_[bucket(gpa, key)]; b; b = b->next)
    if (b->gpa == gpa && b->key == key) return b;
  return nullptr;
}

void BlockCache::insert(Block* block) {
  Block*& head = buckets_[bucket(block->gpa, block->key)];
  block->next = head;
  head = block;
}

void BlockCache::remove(Block* block) {
  for (Block** at = &buckets_[bucket(block->gpa, block->key)]; *at; at = &(*at)->next) {
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
  return p;
}

void BlockCache::clear() {
  std::fill(buckets_.begin(), buckets_.end(), nullptr);
  used_ = 0;
}

}  // namespace trapline::engine::interpret
