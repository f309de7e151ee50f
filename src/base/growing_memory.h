// Memory for records that only grow: in whole huge pages where the host gives them (transparent_hugepage: madvise or
// always), else populated ahead of use. A host whose own page tables are shadowed charges some 20 us for the first touch
// of a page, whatever its size.
#pragma once

#include <memory_resource>

#include "base/types.h"

namespace trapline {

inline constexpr u64 kHugePage = 2 * MiB;

// Address space of `bytes` that begins at a multiple of a huge page, with this protection (PROT_NONE: taken, and no
// more), never backed in advance. Null: the host has none left.
void* reserve_huge(u64 bytes, int protection);

// The same, readable and writable, that asks for huge pages.
void* map_huge(u64 bytes);

// Tells the host that [at, at + bytes) is about to be written for the first time.
void populate(void* at, u64 bytes);

// Allocations that are given back all at once, populated ahead. What is given back of 4 KiB and more before that is used
// again for what is as large, within an eighth: containers that grow would leave all they have outgrown. Not thread-safe.
class GrowingMemory : public std::pmr::memory_resource {
 public:
  GrowingMemory() = default;
  ~GrowingMemory() override { release(); }
  GrowingMemory(const GrowingMemory&) = delete;
  // All of it goes back to the host.
  void release();

 private:
  struct Chunk {
    Chunk* before;
    u64 bytes;
  };
  struct Returned {
    Returned* next;
  };
  // Eight sizes an octave.
  static constexpr unsigned kOctave = 8, kSizes = 64 * kOctave;
  void* do_allocate(std::size_t bytes, std::size_t alignment) override;
  void do_deallocate(void* at, std::size_t bytes, std::size_t alignment) override;
  bool do_is_equal(const memory_resource& other) const noexcept override { return this == &other; }
  Chunk* chunk_ = nullptr;
  u8* next_ = nullptr;
  u8* populated_ = nullptr;
  u8* end_ = nullptr;
  Returned* returned_[kSizes] = {};
};

}  // namespace trapline
