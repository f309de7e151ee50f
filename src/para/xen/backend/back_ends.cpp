#include "para/xen/backend/back_ends.h"

#include "para/xen/backend/block.h"
#include "para/xen/serving_lock.h"

namespace trapline::para::xen {

BackEnds::~BackEnds() = default;

void BackEnds::set_up(cpu::Vcpu& cpu) {
  if (ready_.load(std::memory_order_acquire)) return;
  const ServingLock held{lock_, cpu};
  if (ready_.load()) return;
  const Layout& layout = domain_.layout();
  Mfn next = layout.backends;
  const Mfn end = next + layout.backend_frames;
  if (next != end && cpu.bus) {
    u32 disks = 0;
    for (const VirtioFunction& function : VirtioFunction::find(cpu)) {
      if (function.type() != VirtioFunction::kBlock || end - next < kDiskFrames) continue;
      const u32 instance = static_cast<u32>(all_.size());
      auto block = std::make_unique<Block>(domain_, ram_, function, disks++, instance, next);
      next += kDiskFrames;
      if (!block->begin(cpu, static_cast<u8>(kFirstVector + instance))) continue;
      block->announce(cpu);
      all_.push_back(std::move(block));
    }
  }
  ready_.store(true, std::memory_order_release);
}

void BackEnds::store_changed(cpu::Vcpu& cpu) {
  if (all_.empty()) return;
  const ServingLock held{lock_, cpu};  // so that changes are looked at in their order
  for (const Store::Change& change : domain_.store().take_changes(cpu))
    for (const auto& b : all_) b->store_changed(cpu, change);
}

void BackEnds::notified(cpu::Vcpu& cpu, u32 instance) {
  if (ready_.load(std::memory_order_acquire) && instance < all_.size()) all_[instance]->notified(cpu);
}

bool BackEnds::interrupted(cpu::Vcpu& cpu, u8 vector) {
  const u32 instance = vector - u32{kFirstVector};
  if (!ready_.load(std::memory_order_acquire) || instance >= all_.size()) return false;
  all_[instance]->interrupted(cpu);
  return true;
}

}  // namespace trapline::para::xen
