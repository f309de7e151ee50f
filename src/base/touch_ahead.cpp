#include "base/touch_ahead.h"

#include <atomic>

#include "base/growing_memory.h"

namespace trapline {

namespace {

std::atomic<void (*)(u64, u64)> g_ask{nullptr};
std::atomic<void*> g_spare{nullptr};
constexpr u64 kSpare = 64 * KiB;  // no address of memory: asks for the spare huge page

void ask(u64 at, u64 bytes) {
  if (auto* const to = g_ask.load(std::memory_order_relaxed)) to(at, bytes);
}

}  // namespace

void touch_ahead(const void* at, u64 bytes) { ask(reinterpret_cast<u64>(at), bytes); }

void touch_ahead_spare() { ask(kSpare, 1); }

void* spare_huge() { return g_spare.load(std::memory_order_relaxed) ? g_spare.exchange(nullptr) : nullptr; }

void set_touch_ahead(void (*ask)(u64, u64)) { g_ask.store(ask, std::memory_order_relaxed); }

void serve_touch(u64 at, u64 bytes) {
  if (at != kSpare) return populate(reinterpret_cast<void*>(at), bytes);
  if (g_spare.load(std::memory_order_relaxed)) return;
  void* const page = map_huge(kHugePage);
  if (page == nullptr) return;
  populate(page, kHugePage);
  g_spare.store(page);  // only this thread stores one
}

}  // namespace trapline
