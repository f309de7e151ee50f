#include "para/xen/backend/virtio_queue.h"

#include <cstring>

#include "base/invariant.h"

namespace trapline::para::xen {

namespace {

// Offsets within the available and the used area.
constexpr u64 kFlags = 0, kIndex = 2, kEntries = 4;
constexpr u16 kNoNotify = 1;
struct Used {
  u32 id, length;
};

}  // namespace

VirtioQueue::VirtioQueue(GuestMemory& ram, Gpa base, u16 size)
    : ram_{ram}, base_{base}, size_{size}, available_{sizeof(VirtioDescriptor) * size} {
  used_ = available_ + kEntries + 2u * (size_ + 2u);
  INVARIANT(used_ % 4 == 0 && used_ + kEntries + sizeof(Used) * size_ + 2 <= kPageSize, "a queue of {}", size);
  clear();
}

void VirtioQueue::clear() {
  std::memset(at<u8>(0), 0, kPageSize);
  next_ = seen_ = 0;
}

void VirtioQueue::offer(u16 slot, Gpa table, u32 entries) {
  *at<VirtioDescriptor>(slot * sizeof(VirtioDescriptor)) = {table, static_cast<u32>(entries * sizeof(VirtioDescriptor)),
                                                            VirtioDescriptor::kIndirect, 0};
  *at<u16>(available_ + kEntries + 2u * (next_ % size_)) = slot;
  next_++;
}

// 2.7.13: the index after the entries, and the look at the flags after the index.
bool VirtioQueue::publish() {
  u16* index = at<u16>(available_ + kIndex);
  if (*index == next_) return false;
  __atomic_store_n(index, next_, __ATOMIC_SEQ_CST);
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  return !(__atomic_load_n(at<u16>(used_ + kFlags), __ATOMIC_SEQ_CST) & kNoNotify);
}

std::optional<VirtioQueue::Done> VirtioQueue::take() {
  if (__atomic_load_n(at<u16>(used_ + kIndex), __ATOMIC_ACQUIRE) == seen_) return std::nullopt;
  const Used used = *at<Used>(used_ + kEntries + sizeof(Used) * (seen_ % size_));
  seen_++;
  INVARIANT(used.id < size_, "a virtio device gives back request {} of a queue of {}", used.id, size_);
  return Done{static_cast<u16>(used.id), used.length};
}

}  // namespace trapline::para::xen
