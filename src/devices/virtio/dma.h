// Guest RAM as devices reach it. The driver names the places, so each is checked before it is used; whoever implements
// this maps nothing but RAM.
#pragma once

#include <atomic>
#include <cstring>
#include <optional>
#include <span>

#include "base/addr.h"

namespace trapline::devices::virtio {

class Dma {
 public:
  virtual ~Dma() = default;
  // The host bytes of [at, at + length), or nothing unless all of them are RAM. They stay where they are until the
  // machine is reset.
  virtual std::optional<std::span<std::byte>> bytes(Gpa at, u64 length) const = 0;
  // The device has written these bytes. On return every engine has forgotten code that was decoded from them: call it
  // after the bytes are there and before the driver is told. May wait for the core; any thread, but not under a lock
  // that an access by the guest takes.
  virtual void written(Gpa at, u64 length) = 0;
  // Takes the memory of these whole pages away: they read as zeros until they are written again. As written() otherwise.
  // Nothing happens to what is no RAM.
  virtual void give_back(Gpa at, u64 length) = 0;
};

// A copy of what the guest may rewrite at any time: made once, and the compiler does not look again.
template <class T>
T copy_once(const std::byte* from) {
  T copy;
  std::memcpy(&copy, from, sizeof copy);
  asm volatile("" : : "r"(&copy) : "memory");
  return copy;
}

// Words that driver and device use at the same time. `at` is aligned: the queue has seen to it.
inline u16 load_acquire(const std::byte* at) {
  return std::atomic_ref<u16>{*reinterpret_cast<u16*>(const_cast<std::byte*>(at))}.load(std::memory_order_acquire);
}
inline void store_release(std::byte* at, u16 value) {
  std::atomic_ref<u16>{*reinterpret_cast<u16*>(at)}.store(value, std::memory_order_release);
}

}  // namespace trapline::devices::virtio
