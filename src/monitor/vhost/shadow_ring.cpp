#include "monitor/vhost/shadow_ring.h"

#include <algorithm>
#include <cstring>

namespace trapline::monitor::vhost {

namespace virtio = devices::virtio;
using virtio::Descriptor;
using virtio::Request;

namespace {
std::size_t segments_of(const Request& request) { return request.readable().size() + request.writable().size(); }
}  // namespace

void ShadowRing::restart(bool indirect) {
  std::memset(memory_, 0, kTables);
  indirect_ = indirect;
  for (u16 i = 0; i < kSize; i++) next_[i] = static_cast<u16>(i + 1);
  free_ = 0;
  free_count_ = kSize;
  available_ = published_ = seen_ = in_flight_ = 0;
}

bool ShadowRing::never_fits(const Request& request) {
  const std::size_t segments = segments_of(request);
  return segments == 0 || segments > kSize;
}

void ShadowRing::put(u64 at, const virtio::Segment& segment, u16 flags, u16 next) {
  const Descriptor d{segment.at, static_cast<u32>(segment.bytes.size()), flags, next};
  std::memcpy(memory_ + at, &d, sizeof d);
}

u16 ShadowRing::allocate() {
  free_count_--;
  return std::exchange(free_, next_[free_]);
}

bool ShadowRing::push(Request& request) {
  const std::size_t segments = segments_of(request);
  const bool by_table = indirect_ && segments > 1;
  const std::size_t wanted = by_table ? 1 : segments;
  if (wanted > free_count_) return false;
  const u16 head = allocate();
  u16 at = head;
  std::size_t i = 0;
  const auto add = [&](const virtio::Segment& segment, u16 kind) {
    const bool last = ++i == segments;
    const u16 flags = static_cast<u16>(kind | (last ? 0 : virtio::descriptor_flag::next));
    if (by_table) {
      put(kTables + head * kTable + (i - 1) * sizeof(Descriptor), segment, flags, static_cast<u16>(last ? 0 : i));
      return;
    }
    const u16 next = last ? u16{0} : allocate();
    put(at * sizeof(Descriptor), segment, flags, next);
    if (!last) next_[at] = next;
    at = next;
  };
  for (const virtio::Segment& s : request.readable()) add(s, 0);
  for (const virtio::Segment& s : request.writable()) add(s, virtio::descriptor_flag::write);
  if (by_table) {
    const Descriptor d{Gpa{address_ + kTables + head * kTable}, static_cast<u32>(segments * sizeof(Descriptor)),
                       virtio::descriptor_flag::indirect, 0};
    std::memcpy(memory_ + head * sizeof d, &d, sizeof d);
  }
  heads_[head] = {std::move(request), static_cast<u16>(wanted)};
  std::memcpy(memory_ + kAvailable + virtio::kRingEntries + sizeof(u16) * (available_ % kSize), &head, sizeof head);
  available_++;
  in_flight_++;
  return true;
}

bool ShadowRing::publish() {
  if (available_ == published_) return false;
  published_ = available_;
  virtio::store_release(memory_ + kAvailable + virtio::kRingIndex, available_);
  std::atomic_thread_fence(std::memory_order_seq_cst);  // before the look at what the back end asks for
  return !(virtio::load_acquire(memory_ + kUsed + virtio::kRingFlags) & virtio::kNoNotify);
}

// Each used element takes one that is in flight, so a back end that counts on and on is found out.
ShadowRing::Take ShadowRing::take(Used& used) {
  const u16 index = virtio::load_acquire(memory_ + kUsed + virtio::kRingIndex);
  const u16 waiting = static_cast<u16>(index - seen_);
  if (waiting == 0) return Take::nothing;
  if (waiting > in_flight_) return Take::broken;
  const auto element = virtio::copy_once<virtio::UsedElement>(memory_ + kUsed + virtio::kRingEntries +
                                                              sizeof(virtio::UsedElement) * (seen_ % kSize));
  if (element.id >= kSize || !heads_[element.id].request) return Take::broken;
  const u16 head = static_cast<u16>(element.id);
  used.request = std::move(*heads_[head].request);
  used.written = static_cast<u32>(std::min<u64>(element.length, used.request.writable_bytes()));
  release(head);
  seen_++;
  return Take::used;
}

void ShadowRing::release(u16 head) {
  heads_[head].request.reset();
  u16 last = head;
  for (u16 left = heads_[head].descriptors; left > 1; left--) last = next_[last];
  next_[last] = free_;
  free_ = head;
  free_count_ = static_cast<u16>(free_count_ + heads_[head].descriptors);
  in_flight_--;
}

std::vector<Request> ShadowRing::clear() {
  std::vector<Request> all;
  for (u16 i = 0; i < kSize; i++)
    if (heads_[i].request) {
      all.push_back(std::move(*heads_[i].request));
      release(i);
    }
  return all;
}

}  // namespace trapline::monitor::vhost
