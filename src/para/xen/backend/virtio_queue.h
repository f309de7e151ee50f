// The driver's side of a virtqueue (VIRTIO 1.2, 2.7: a split ring), in frames of the hypervisor's heap, which the guest
// cannot reach. Each request is one descriptor, that of its slot, and leads to an indirect table of its owner's.
#pragma once

#include <optional>

#include "base/addr.h"
#include "base/guest_memory.h"

namespace trapline::para::xen {

// Descriptors, of the queue and of indirect tables.
struct VirtioDescriptor {
  static constexpr u16 kNext = 1, kWrite = 2, kIndirect = 4;
  Gpa address;
  u32 length;
  u16 flags, next;
};
static_assert(sizeof(VirtioDescriptor) == 16);

class VirtioQueue {
 public:
  // `base`: of a page; `size`: a power of two, at most 128, so that the page holds all.
  VirtioQueue(GuestMemory& ram, Gpa base, u16 size);

  u16 size() const { return size_; }
  Gpa descriptors() const { return base_; }
  Gpa driver_area() const { return base_.wrapping_add(available_); }
  Gpa device_area() const { return base_.wrapping_add(used_); }
  void clear();

  // Makes a request of the slot, which has none: `entries` descriptors at `table`.
  void offer(u16 slot, Gpa table, u32 entries);
  // What was offered is the device's. True: it has asked to be told.
  bool publish();
  // A slot whose request is done, and how many bytes the device has written.
  struct Done {
    u16 slot;
    u32 written;
  };
  std::optional<Done> take();

 private:
  template <class T>
  T* at(u64 offset) const {
    return reinterpret_cast<T*>(ram_.host(base_.wrapping_add(offset)));
  }

  GuestMemory& ram_;
  Gpa base_;
  u16 size_;
  u64 available_, used_;
  u16 next_ = 0, seen_ = 0;
};

}  // namespace trapline::para::xen
