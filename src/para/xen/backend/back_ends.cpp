#include "para/xen/backend/back_ends.h"

#include "para/xen/backend/block.h"
#include "para/xen/backend/network.h"
#include "para/xen/serving_lock.h"

namespace trapline::para::xen {

BackEnds::~BackEnds() = default;

void BackEnds::set_up(cpu::Vcpu& cpu) {
  if (ready_.load(std::memory_order_acquire)) return;
  const ServingLock held{lock_, cpu};
  if (ready_.load()) return;
  if (domain_.layout().backend_frames != 0 && cpu.bus) make_all(cpu);
  ready_.store(true, std::memory_order_release);
}

void BackEnds::make_all(cpu::Vcpu& cpu) {
  Mfn next = domain_.layout().backends;
  const Mfn end = next + domain_.layout().backend_frames;
  u32 disks = 0, networks = 0;
  const auto add = [&](auto made, u64 frames) {
    next += frames;
    if (!made->begin(cpu, static_cast<u8>(kFirstVector + all_.size()))) return;
    made->announce(cpu);
    all_.push_back(std::move(made));
  };
  for (const VirtioFunction& function : VirtioFunction::find(cpu)) {
    const u32 instance = static_cast<u32>(all_.size());
    if (function.type() == VirtioFunction::kBlock && end - next >= kDiskFrames)
      add(std::make_unique<BlockBackEnd>(domain_, ram_, function, disks++, instance, next), kDiskFrames);
    if (function.type() == VirtioFunction::kNetwork && end - next >= kNetworkFrames)
      add(std::make_unique<NetworkBackEnd>(domain_, ram_, function, networks++, instance, next), kNetworkFrames);
  }
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
