#include "devices/virtio/device.h"

#include "base/trace.h"

namespace trapline::devices::virtio {

Queue& Backend::queue(unsigned index) const { return device_->queue(index); }

Device::Device(std::unique_ptr<Backend> backend, Dma& dma, Host& host) : backend_{std::move(backend)}, host_{host} {
  INVARIANT(kind().queues.size() <= kMostQueues, "{} queues", kind().queues.size());
  for (u16 i = 0; i < kind().queues.size(); i++) {
    INVARIANT(kind().queues[i] <= kLargestQueue, "a queue of {}", kind().queues[i]);
    queues_.push_back(std::make_unique<Queue>(*this, i, dma));
  }
  backend_->attach(*this);
  finish_reset();
}

u8 Device::status() {
  if (s_.resetting && in_flight() == 0) finish_reset();
  return broken() ? s_.status | status::needs_reset : s_.status;
}

// 2.1.1: bits are added; only a reset takes them away.
void Device::write_status(u8 value) {
  TRACE(devices, "{} status {:#x}", kind().name, value);
  (void)status();  // a reset that can end has ended
  if (s_.resetting) return;
  if (value == 0) return begin_reset();  // whatever the status was: queues may be enabled all the same
  constexpr auto without = [](u8 from, u8 bits) { return static_cast<u8>(from & ~bits); };
  u8 next = s_.status | without(value, status::needs_reset);
  const u8 added = without(next, s_.status);
  if (added & status::features_ok && !acceptable()) next = without(next, status::features_ok);
  if (added & status::driver_ok && !(next & status::features_ok)) next = without(next, status::driver_ok);  // 3.1.1
  s_.status = next;
  if (added & next & status::driver_ok) start();
}

bool Device::acceptable() const {
  return (s_.features & feature::version_1) && !(s_.features & ~offered()) && backend_->accepts(s_.features);
}

u32 Device::device_features() const {
  return s_.device_select < 2 ? static_cast<u32>(offered() >> 32 * s_.device_select) : 0;
}

u32 Device::driver_features() const {
  return s_.driver_select < 2 ? static_cast<u32>(s_.features >> 32 * s_.driver_select) : 0;
}

void Device::write_driver_features(u32 value) {
  if (s_.status & status::features_ok || s_.driver_select >= 2) return;
  const unsigned shift = 32 * s_.driver_select;
  s_.features = (s_.features & ~(u64{0xffffffff} << shift)) | u64{value} << shift;
}

void Device::write_size(u16 size) {
  if (writable_queue() && size <= largest(s_.queue_select)) selected()->place.size = size;
}

void Device::write_place(Gpa RingPlace::*area, unsigned shift, u32 value) {
  if (!writable_queue()) return;
  u64& place = (selected()->place.*area).raw;
  place = (place & ~(u64{0xffffffff} << shift)) | u64{value} << shift;
}

void Device::enable() {
  if (!writable_queue() || s_.resetting) return;
  selected()->enabled = true;
  if (live() && !start_queue(s_.queue_select)) {
    break_down(life_);
    transport_->config_changed();
  }
}

bool Device::start_queue(unsigned index) {
  const QueueState& q = s_.queues[index];
  const bool started = queues_[index]->start(q.place, q.position, s_.features, life_);
  if (!started) TRACE(devices, "{} queue {} cannot be where it is", kind().name, index);
  return started;
}

void Device::start() {
  backend_->start(s_.features);
  bool all = true;
  for (unsigned i = 0; i < queues_.size(); i++)
    if (s_.queues[i].enabled) all &= start_queue(i);
  if (!all) {
    break_down(life_);
    transport_->config_changed();
  }
  // What was made available before counts too.
  for (unsigned i = 0; i < queues_.size(); i++)
    if (s_.queues[i].enabled) host_.rung(*this, i);
}

void Device::begin_reset() {
  for (auto& q : queues_) q->stop();
  if (s_.status & status::driver_ok && !s_.resetting) backend_->stop();
  s_.resetting = true;
  if (in_flight() == 0) finish_reset();
}

void Device::finish_reset() {
  s_ = {};
  s_.queues.resize(queues_.size());
  for (unsigned i = 0; i < queues_.size(); i++) s_.queues[i].place.size = largest(i);
  life_++;
}

void Device::reset() {
  begin_reset();
  INVARIANT(in_flight() == 0, "{} requests of {} in flight", in_flight(), kind().name);
}

u32 Device::in_flight() const {
  u32 sum = 0;
  for (const auto& q : queues_) sum += q->in_flight();
  return sum;
}

void Device::read_config(u64 offset, std::span<u8> out) const {
  std::fill(out.begin(), out.end(), u8{0});
  backend_->read_config(offset, out);
}

void Device::write_config(u64 offset, std::span<const u8> in) {
  if (!s_.resetting) backend_->write_config(offset, in);
}

void Device::notify(unsigned queue) {
  if (live() && queue < queues_.size()) host_.rung(*this, queue);
}

void Device::config_changed() {
  generation_++;
  host_.interrupt(*this, Host::kConfig);
}

void Device::fail(u64 life) {
  if (break_down(life)) host_.interrupt(*this, Host::kConfig);
}

// 2.1.2: no queue is used any more.
bool Device::break_down(u64 life) {
  u64 last = broken_.load();
  do {
    if (last >= life || life != life_.load()) return false;
  } while (!broken_.compare_exchange_weak(last, life));
  TRACE(devices, "{} needs a reset", kind().name);
  for (auto& q : queues_) q->stop(life);
  return true;
}

Device::State Device::save() const {
  State state = s_;
  state.broken = broken();
  state.backend = backend_->save();
  for (unsigned i = 0; i < queues_.size(); i++)
    if (live() && state.queues[i].enabled) state.queues[i].position = queues_[i]->position();
  return state;
}

void Device::restore(const State& state) {
  s_ = state;
  s_.backend.clear();
  life_++;
  if (state.broken) broken_ = life_.load();
  backend_->restore(state.backend, s_.features);
  for (unsigned i = 0; i < queues_.size(); i++) {
    queues_[i]->rest_at(s_.queues[i].position);
    if (live() && !broken() && s_.queues[i].enabled) start_queue(i);
  }
}

}  // namespace trapline::devices::virtio
