// A value that one process publishes and another copies whole: a sequence lock in shared memory. One writer at a time
// (callers hold a lock); readers never write, so their mapping may be read-only.
#pragma once

#include <sched.h>

#include <atomic>
#include <cstring>
#include <type_traits>

#include "base/types.h"

namespace trapline::devices {

template <class T>
class Published {
  // No padding: what lies between a value's members would be the writer's secrets.
  static_assert(std::is_trivially_copyable_v<T> && std::has_unique_object_representations_v<T> && sizeof(T) % 8 == 0);
  static constexpr std::size_t kWords = sizeof(T) / 8;

 public:
  // Does nothing when the value is as it was.
  void store(const T& value) {
    u64 words[kWords];
    std::memcpy(words, &value, sizeof value);
    bool same = true;
    for (std::size_t i = 0; i < kWords; i++) same &= words_[i].load(std::memory_order_relaxed) == words[i];
    if (same) return;
    const u32 before = sequence_.load(std::memory_order_relaxed);
    sequence_.store(before + 1, std::memory_order_relaxed);  // odd: being written
    std::atomic_thread_fence(std::memory_order_release);
    for (std::size_t i = 0; i < kWords; i++) words_[i].store(words[i], std::memory_order_relaxed);
    sequence_.store(before + 2, std::memory_order_release);
  }

  // The value as of some moment since the call began. The writer is never long at it, and waits for nobody meanwhile.
  T load() const {
    for (unsigned tries = 1;; tries++) {
      const u32 before = sequence_.load(std::memory_order_acquire);
      T value;  // filled in at once: a second copy would wait for the first's stores
      for (std::size_t i = 0; i < kWords; i++) {
        const u64 word = words_[i].load(std::memory_order_relaxed);
        std::memcpy(reinterpret_cast<u8*>(&value) + 8 * i, &word, sizeof word);
      }
      std::atomic_thread_fence(std::memory_order_acquire);
      if (!(before & 1) && sequence_.load(std::memory_order_relaxed) == before) return value;
      if (tries % 64 == 0) ::sched_yield();  // it may wait for this very CPU
    }
  }

 private:
  alignas(64) std::atomic<u32> sequence_{0};
  std::atomic<u64> words_[kWords] = {};
};

}  // namespace trapline::devices
