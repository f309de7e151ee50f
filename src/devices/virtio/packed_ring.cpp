// VIRTIO 1.2, 2.8.
#include "devices/virtio/ring.h"

namespace trapline::devices::virtio {

namespace {

class PackedRing final : public Ring {
 public:
  struct Areas {
    std::byte *ring, *driver, *device;
  };
  PackedRing(Dma& dma, const RingPlace& place, const Areas& areas, const RingPosition& at, u64 features)
      : Ring{dma, place.size, features, at},
        ring_{areas.ring},
        driver_{areas.driver},
        device_{areas.device},
        ring_at_{place.descriptors} {}

  Take take(Request& request) override;
  void give(std::span<const Given> all) override;
  bool wants_interrupt() override;
  void hush() override { store_release(device_ + 2, kEventsOff); }
  bool listen() override;

 private:
  u16 put_used(const Request& request, u32 written);
  std::byte* at(u16 position) const { return ring_ + u64{position} * sizeof(PackedDescriptor); }
  // 2.8.1: available when AVAIL is the wrap counter and USED is not.
  bool available(u16 position, bool wrap) const {
    const u16 flags = load_acquire(at(position) + offsetof(PackedDescriptor, flags));
    return ((flags & descriptor_flag::avail) != 0) == wrap && ((flags & descriptor_flag::used) != 0) != wrap;
  }
  void advance(u16& position, bool& wrap, u16 by) const {
    position = static_cast<u16>(position + by);
    if (position < size_) return;
    position = static_cast<u16>(position - size_);
    wrap = !wrap;
  }

  std::byte *ring_, *driver_, *device_;
  Gpa ring_at_;
};

// A list is made available by its first descriptor, the last one written: the others are there when it is. Its buffer
// id is in the last one (2.8.6).
Ring::Take PackedRing::take(Request& request) {
  if (!available(at_.taken, at_.taken_wrap)) return Take::nothing;
  u16 position = at_.taken;
  bool wrap = at_.taken_wrap;
  for (u16 count = 1; count <= size_; count++) {
    const auto d = copy_once<PackedDescriptor>(at(position));
    advance(position, wrap, 1);
    const bool more = d.flags & descriptor_flag::next;
    if (d.flags & descriptor_flag::indirect) {
      if (!indirect_ || more || count > 1) return Take::broken;  // 2.8.8: not in a list
      if (!add_indirect(dma_, d.address, d.length, kLargestQueue, TableOrder::consecutive, request))
        return Take::broken;
    } else if (!request.add(dma_, d.address, d.length, d.flags & descriptor_flag::write)) {
      return Take::broken;
    }
    if (more) continue;
    request.id = d.id;
    request.descriptors = count;
    at_.taken = position;
    at_.taken_wrap = wrap;
    return Take::request;
  }
  return Take::broken;
}

// One used descriptor for each list, at the device's own place; it skips as many as the list had (2.8.7). The driver looks
// at them in their order, so the first one's flags come last.
void PackedRing::give(std::span<const Given> all) {
  std::byte* first = nullptr;
  u16 flags_of_first = 0;
  for (const Given& g : all) {
    std::byte* flags_at = at(at_.given) + offsetof(PackedDescriptor, flags);
    const u16 flags = put_used(g.request, g.written);
    if (first != nullptr)
      store_release(flags_at, flags);
    else
      first = flags_at, flags_of_first = flags;
    advance(at_.given, at_.given_wrap, g.request.descriptors);
  }
  if (first != nullptr) store_release(first, flags_of_first);
}

// All but the flags, which are returned.
u16 PackedRing::put_used(const Request& request, u32 written) {
  std::byte* d = at(at_.given);
  const u64 offset = static_cast<u64>(d - ring_);
  std::memcpy(d + offsetof(PackedDescriptor, length), &written, sizeof written);
  std::memcpy(d + offsetof(PackedDescriptor, id), &request.id, sizeof request.id);
  dma_.written(ring_at_.wrapping_add(offset), sizeof(PackedDescriptor));
  const u16 both = descriptor_flag::avail | descriptor_flag::used;
  return static_cast<u16>((at_.given_wrap ? both : 0) | (written != 0 ? descriptor_flag::write : 0));
}

bool PackedRing::wants_interrupt() {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  const u16 before = std::exchange(at_.told, at_.given);
  const bool before_wrap = std::exchange(at_.told_wrap, at_.given_wrap);
  if (before == at_.given && before_wrap == at_.given_wrap) return false;
  const auto wish = copy_once<EventSuppression>(driver_);
  if (wish.flags == kEventsOff) return false;
  if (wish.flags != kEventsAt || !events_) return true;
  // Positions as distances behind `given`, counted through the wrap.
  const auto behind = [this](u16 position, bool wrap) {
    return wrap == at_.given_wrap ? i32{at_.given} - position : i32{at_.given} + size_ - position;
  };
  const u16 event = wish.position & 0x7fff;
  const i32 distance = behind(event, wish.position >> 15);
  return event < size_ && distance > 0 && distance <= behind(before, before_wrap);
}

bool PackedRing::listen() {
  if (events_) store_release(device_, static_cast<u16>(at_.taken | u16{at_.taken_wrap} << 15));
  store_release(device_ + 2, events_ ? kEventsAt : kEventsOn);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  return available(at_.taken, at_.taken_wrap);
}

}  // namespace

std::unique_ptr<Ring> make_packed_ring(Dma& dma, const RingPlace& place, const RingPosition& at, u64 features) {
  if (place.size == 0 || place.size > kLargestQueue) return nullptr;
  if (place.descriptors.raw % 16 != 0 || place.driver.raw % 4 != 0 || place.device.raw % 4 != 0) return nullptr;
  if (at.taken >= place.size || at.given >= place.size) return nullptr;
  const auto ring = dma.bytes(place.descriptors, u64{place.size} * sizeof(PackedDescriptor));
  const auto driver = dma.bytes(place.driver, sizeof(EventSuppression));
  const auto device = dma.bytes(place.device, sizeof(EventSuppression));
  if (!ring || !driver || !device) return nullptr;
  return std::make_unique<PackedRing>(dma, place, PackedRing::Areas{ring->data(), driver->data(), device->data()}, at,
                                      features);
}

}  // namespace trapline::devices::virtio
