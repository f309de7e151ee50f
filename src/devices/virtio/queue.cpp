#include "devices/virtio/queue.h"

#include "base/invariant.h"
#include "devices/virtio/device.h"

namespace trapline::devices::virtio {

std::optional<Request> Queue::next() {
  u64 life = 0;
  {
    std::lock_guard guard{lock_};
    if (!ring_) return std::nullopt;
    Request request;
    // A driver that makes descriptors available again before they are back could have any number of requests here.
    const Ring::Take took = in_flight_ >= size_ ? Ring::Take::nothing : ring_->take(request);
    if (took == Ring::Take::nothing) return std::nullopt;
    if (took == Ring::Take::request) {
      in_flight_++;
      request.queue_ = this;
      return request;
    }
    life = life_;
  }
  device_.fail(life);  // which stops this queue too
  return std::nullopt;
}

void Queue::complete(Request&& request, u32 written) {
  Given one{std::move(request), written};
  complete({&one, 1});
}

void Queue::complete(std::span<Given> all) {
  for (const Given& g : all) {
    INVARIANT(g.request.queue_ == this, "a request of another queue");
    INVARIANT(g.written <= g.request.writable_bytes(), "{} bytes written of {}", g.written, g.request.writable_bytes());
    for (const Segment& s : g.request.writable()) dma_.written(s.at, s.bytes.size());
  }
  std::lock_guard guard{lock_};
  INVARIANT(in_flight_ >= all.size(), "queue {}: {} requests are completed, {} in flight", index_, all.size(),
            in_flight_);
  for (Given& g : all) {
    g.request.queue_ = nullptr;
    in_flight_--;
  }
  if (ring_) ring_->give(all);
}

void Queue::signal() {
  {
    std::lock_guard guard{lock_};
    if (!ring_ || !ring_->wants_interrupt()) return;
  }
  device_.interrupt(index_);
}

void Queue::hush() {
  std::lock_guard guard{lock_};
  if (ring_) ring_->hush();
}

// With as many in flight as there may be, more can be taken only once one is back, and then somebody looks.
bool Queue::listen() {
  std::lock_guard guard{lock_};
  return ring_ && ring_->listen() && in_flight_ < size_;
}

bool Queue::start(const RingPlace& place, const RingPosition& at, u64 features, u64 life) {
  auto ring = (features & feature::ring_packed ? make_packed_ring : make_split_ring)(dma_, place, at, features);
  std::lock_guard guard{lock_};
  ring_ = std::move(ring);
  size_ = place.size;
  life_ = life;
  return ring_ != nullptr;
}

void Queue::stop() {
  std::lock_guard guard{lock_};
  end_ring();
}

void Queue::stop(u64 life) {
  std::lock_guard guard{lock_};
  if (life_ == life) end_ring();
}

void Queue::end_ring() {
  if (ring_) last_ = ring_->position();
  ring_.reset();
}

void Queue::rest_at(const RingPosition& at) {
  std::lock_guard guard{lock_};
  ring_.reset();
  last_ = at;
}

void Queue::drop() {
  std::lock_guard guard{lock_};
  INVARIANT(in_flight_ != 0, "queue {}: a request is dropped that is not in flight", index_);
  in_flight_--;
}

u32 Queue::in_flight() const {
  std::lock_guard guard{lock_};
  return in_flight_;
}

bool Queue::running() const {
  std::lock_guard guard{lock_};
  return ring_ != nullptr;
}

RingPosition Queue::position() const {
  std::lock_guard guard{lock_};
  return ring_ ? ring_->position() : last_;
}

}  // namespace trapline::devices::virtio
