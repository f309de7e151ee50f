// A virtio device without its transport: status, features, queues and their places (VIRTIO 1.2, 2.1 to 2.4). A transport
// (machine/virtio_pci.h) makes registers of it, a back end does the work, and the host gives it threads.
//
// All calls under the machine's lock, but for those that say so.
//
// Reset in flight: once the driver has written 0 no request is taken or answered; the status stays what it was until
// every request that was taken is back, because its memory may still be in use, and reads 0 from then on (2.1.2).
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "devices/virtio/backend.h"
#include "devices/virtio/dma.h"
#include "devices/virtio/queue.h"

namespace trapline::devices::virtio {

// The registers' side. Called under the machine's lock.
struct Transport {
  virtual ~Transport() = default;
  virtual void interrupt(unsigned queue) = 0;
  virtual void config_changed() = 0;
};

// What the monitor gives.
struct Host {
  virtual ~Host() = default;
  static constexpr unsigned kConfig = ~0u;
  // Has the device's transport interrupt the driver for this queue, or for a change of the configuration, under the
  // machine's lock. Any thread; of those that hold the lock only one that is in Backend::serve().
  virtual void interrupt(Device& device, unsigned queue) = 0;
  // Sees to it that Backend::serve(queue) is called. Under the machine's lock.
  virtual void rung(Device& device, unsigned queue) = 0;
};

class Device {
 public:
  struct QueueState {
    RingPlace place;
    RingPosition position;
    bool enabled = false;
    bool operator==(const QueueState&) const = default;
  };
  struct State {
    u8 status = 0;
    bool broken = false, resetting = false;
    u32 device_select = 0, driver_select = 0;
    u16 queue_select = 0;
    u64 features = 0;  // what the driver has accepted
    std::vector<QueueState> queues;
    std::vector<u8> backend;  // Backend::save()
    bool operator==(const State&) const = default;
  };

  Device(std::unique_ptr<Backend> backend, Dma& dma, Host& host);
  Device(const Device&) = delete;

  Backend& backend() const { return *backend_; }
  const Backend::Kind& kind() const { return backend_->kind(); }
  void attach(Transport& transport) { transport_ = &transport; }
  Transport& transport() const { return *transport_; }

  // Without requests in flight.
  State save() const;
  void restore(const State& state);

  // -- The registers that every transport has.
  u8 status();
  void write_status(u8 value);
  u32 device_features() const;  // 32 of them, those selected
  u32 driver_features() const;
  void write_driver_features(u32 value);
  u32& device_select() { return s_.device_select; }
  u32& driver_select() { return s_.driver_select; }
  u16& queue_select() { return s_.queue_select; }

  u16 queues() const { return static_cast<u16>(queues_.size()); }
  u16 largest(unsigned queue) const { return kind().queues[queue]; }
  // Of the selected queue; null: there is no such queue.
  QueueState* selected() { return s_.queue_select < queues() ? &s_.queues[s_.queue_select] : nullptr; }
  // What the driver may write before it enables the queue, and nothing after that.
  void write_size(u16 size);
  void write_place(Gpa RingPlace::*area, unsigned shift, u32 value);  // a half: bits 0..31 or 32..63
  void enable();

  void read_config(u64 offset, std::span<u8> out) const;
  void write_config(u64 offset, std::span<const u8> in);
  u8 config_generation() const { return generation_.load(std::memory_order_relaxed); }

  // A doorbell as a register access.
  void notify(unsigned queue);
  bool live() const { return (s_.status & status::driver_ok) && !s_.resetting; }
  // The machine's RESET, or its end: nothing is in flight.
  void reset();

  // -- Any thread.
  Queue& queue(unsigned index) const { return *queues_[index]; }
  void interrupt(unsigned queue) { host_.interrupt(*this, queue); }
  // The configuration has changed.
  void config_changed();
  // What the driver did means nothing: it is told that the device needs a reset. `life`: the queue's; a worker may say so
  // only when a reset has ended that life, and the next driver's device is sound.
  void fail(u64 life);
  u64 life() const { return life_; }
  u32 in_flight() const;

 private:
  u64 offered() const { return kind().features | feature::of_rings; }
  bool acceptable() const;
  void start();
  bool start_queue(unsigned index);
  bool broken() const { return broken_.load(std::memory_order_relaxed) == life_.load(std::memory_order_relaxed); }
  bool break_down(u64 life);  // false: it had, or that life is over
  void begin_reset();
  void finish_reset();
  bool writable_queue() { return selected() != nullptr && !selected()->enabled; }

  std::unique_ptr<Backend> backend_;
  Host& host_;
  Transport* transport_ = nullptr;
  std::vector<std::unique_ptr<Queue>> queues_;
  State s_;  // but for `broken` and the positions of queues that run
  // From one reset to the next; and the last that broke.
  std::atomic<u64> life_{0}, broken_{0};
  std::atomic<u8> generation_{0};
};

}  // namespace trapline::devices::virtio
