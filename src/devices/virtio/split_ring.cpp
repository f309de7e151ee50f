// VIRTIO 1.2, 2.7.
#include <bit>

#include "devices/virtio/ring.h"

namespace trapline::devices::virtio {

namespace {

class SplitRing final : public Ring {
 public:
  struct Areas {
    std::byte *table, *available, *used;
  };
  SplitRing(Dma& dma, const RingPlace& place, const Areas& areas, const RingPosition& at, u64 features)
      : Ring{dma, place.size, features, at},
        table_{areas.table},
        available_{areas.available},
        used_{areas.used},
        used_at_{place.device} {}

  Take take(Request& request) override;
  void give(std::span<const Given> all) override;
  bool wants_interrupt() override;
  void hush() override;
  bool listen() override;

 private:
  bool follow(u16 head, Request& request);
  // An index runs on through 2^16; its place in the ring is what is left by the size, a power of two.
  u64 place(u16 index) const { return index & (size_ - 1u); }
  std::byte* available_event() const { return used_ + kRingEntries + u64{size_} * sizeof(UsedElement); }
  std::byte* used_event() const { return available_ + kRingEntries + u64{size_} * sizeof(u16); }

  std::byte *table_, *available_, *used_;
  Gpa used_at_;
};

Ring::Take SplitRing::take(Request& request) {
  const u16 index = load_acquire(available_ + kRingIndex);
  const u16 waiting = static_cast<u16>(index - at_.taken);
  if (waiting == 0) return Take::nothing;
  if (waiting > size_) return Take::broken;
  const u16 head = load_acquire(available_ + kRingEntries + place(at_.taken) * sizeof(u16));
  if (!follow(head, request)) return Take::broken;
  at_.taken++;
  return Take::request;
}

// Each step takes one of `size_` descriptors, so a loop ends.
bool SplitRing::follow(u16 head, Request& request) {
  request.id = head;
  for (u16 i = head, left = size_; left > 0; left--) {
    if (i >= size_) return false;
    const auto d = copy_once<Descriptor>(table_ + u64{i} * sizeof(Descriptor));
    if (d.flags & descriptor_flag::indirect) {  // 2.7.5.3.1: alone or last, and never with `next`
      if (!indirect_ || d.flags & descriptor_flag::next) return false;
      return add_indirect(dma_, d.address, d.length, kLargestQueue, TableOrder::linked, request);
    }
    if (!request.add(dma_, d.address, d.length, d.flags & descriptor_flag::write)) return false;
    if (!(d.flags & descriptor_flag::next)) return true;
    i = d.next;
  }
  return false;
}

void SplitRing::give(std::span<const Given> all) {
  for (const Given& g : all) {
    const UsedElement element{g.request.id, g.written};
    const u64 offset = kRingEntries + place(at_.given++) * sizeof element;
    std::memcpy(used_ + offset, &element, sizeof element);
    dma_.written(used_at_.wrapping_add(offset), sizeof element);
  }
  store_release(used_ + kRingIndex, at_.given);
}

bool SplitRing::wants_interrupt() {
  // The index is there for the driver before its request for interrupts is read (2.7.7.2).
  std::atomic_thread_fence(std::memory_order_seq_cst);
  const u16 before = std::exchange(at_.told, at_.given);
  if (before == at_.given) return false;
  if (!events_) return !(load_acquire(available_ + kRingFlags) & kNoInterrupt);
  const u16 event = load_acquire(used_event());
  return static_cast<u16>(at_.given - event - 1) < static_cast<u16>(at_.given - before);
}

void SplitRing::hush() {
  if (!events_) store_release(used_ + kRingFlags, kNoNotify);
}

bool SplitRing::listen() {
  if (events_)
    store_release(available_event(), at_.taken);
  else
    store_release(used_ + kRingFlags, 0);
  std::atomic_thread_fence(std::memory_order_seq_cst);  // pairs with the driver's, between index and event
  return load_acquire(available_ + kRingIndex) != at_.taken;
}

}  // namespace

std::unique_ptr<Ring> make_split_ring(Dma& dma, const RingPlace& place, const RingPosition& at, u64 features) {
  if (place.size == 0 || place.size > kLargestQueue || !std::has_single_bit(place.size)) return nullptr;
  if (place.descriptors.raw % 16 != 0 || place.driver.raw % 2 != 0 || place.device.raw % 4 != 0) return nullptr;
  constexpr u64 kEvent = sizeof(u16);
  const auto table = dma.bytes(place.descriptors, u64{place.size} * sizeof(Descriptor));
  const auto available = dma.bytes(place.driver, kRingEntries + u64{place.size} * sizeof(u16) + kEvent);
  const auto used = dma.bytes(place.device, kRingEntries + u64{place.size} * sizeof(UsedElement) + kEvent);
  if (!table || !available || !used) return nullptr;
  return std::make_unique<SplitRing>(dma, place, SplitRing::Areas{table->data(), available->data(), used->data()}, at,
                                     features);
}

}  // namespace trapline::devices::virtio
