#include "base/growing_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <iterator>
#include <new>
#include <utility>

#include "base/touch_ahead.h"

namespace trapline {

namespace {

// One call for 16 pages costs little more than the fault of one.
constexpr u64 kAhead = 64 * KiB;

constexpr u64 kReused = 4 * KiB;

u64 round_up(u64 value, u64 alignment) { return (value + alignment - 1) & ~(alignment - 1); }

struct Size {
  u64 bytes;  // rounded up to four significant bits
  unsigned number;
};
Size size_for(u64 bytes) {
  const auto shift = static_cast<unsigned>(std::bit_width(bytes - 1)) - 4;
  const u64 units = round_up(bytes, u64{1} << shift) >> shift;  // 8 to 16
  return {units << shift, shift * 8 + static_cast<unsigned>(units) - 8};
}

}  // namespace

void* reserve_huge(u64 bytes, int protection) {
  void* all = ::mmap(nullptr, bytes + kHugePage, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (all == MAP_FAILED) return nullptr;
  auto* const from = static_cast<u8*>(all);
  const u64 before = round_up(reinterpret_cast<u64>(from), kHugePage) - reinterpret_cast<u64>(from);
  const u64 end = round_up(before + bytes, kPageSize), all_end = round_up(bytes + kHugePage, kPageSize);
  if (before != 0) ::munmap(from, before);
  if (end != all_end) ::munmap(from + end, all_end - end);
  return from + before;
}

void* map_huge(u64 bytes) {
  void* const at = reserve_huge(bytes, PROT_READ | PROT_WRITE);
  if (at != nullptr) ::madvise(at, bytes, MADV_HUGEPAGE);
  return at;
}

// Where it is refused (hosts before Linux 5.14, no memory left) pages come one by one.
void populate(void* at, u64 bytes) { static_cast<void>(::madvise(at, bytes, MADV_POPULATE_WRITE)); }

void* GrowingMemory::do_allocate(std::size_t bytes, std::size_t alignment) {
  if (bytes >= kReused) {
    const Size size = size_for(bytes);
    bytes = size.bytes;
    alignment = std::max(alignment, alignof(Returned));
    if (Returned*& first = returned_[size.number];
        first && round_up(reinterpret_cast<u64>(first), alignment) == reinterpret_cast<u64>(first))
      return std::exchange(first, first->next);
  }
  const auto place = [&] { return reinterpret_cast<u8*>(round_up(reinterpret_cast<u64>(next_), alignment)); };
  if (next_ == nullptr || place() + bytes > end_) {
    const u64 size = round_up(bytes + alignment + sizeof(Chunk), kHugePage);
    void* const spare = size == kHugePage ? spare_huge() : nullptr;
    void* at = spare ? spare : map_huge(size);
    if (at == nullptr) throw std::bad_alloc{};
    end_ = static_cast<u8*>(at) + size;
    next_ = static_cast<u8*>(at) + sizeof(Chunk);
    populated_ = spare ? end_ : static_cast<u8*>(at) + kAhead;
    if (!spare) populate(at, kAhead);
    chunk_ = new (at) Chunk{chunk_, size};
    touch_ahead_spare();
  }
  u8* const at = place();
  next_ = at + bytes;
  if (next_ > populated_) {
    const u64 more =
        std::min<u64>(round_up(static_cast<u64>(next_ - populated_), kAhead), static_cast<u64>(end_ - populated_));
    populate(populated_, more);
    populated_ += more;
  }
  return at;
}

void GrowingMemory::do_deallocate(void* at, std::size_t bytes, std::size_t) {
  if (bytes < kReused) return;
  Returned*& first = returned_[size_for(bytes).number];
  first = new (at) Returned{first};
}

void GrowingMemory::release() {
  std::fill(std::begin(returned_), std::end(returned_), nullptr);
  while (chunk_ != nullptr) {
    Chunk* const before = chunk_->before;
    ::munmap(chunk_, chunk_->bytes);
    chunk_ = before;
  }
  next_ = populated_ = end_ = nullptr;
}

}  // namespace trapline
