// A queue as a device's back end uses it, from any of its threads:
//
//   do {
//     queue.hush();
//     while (auto request = queue.next()) {
//       Header header;
//       if (!request->read(0, header)) ...            // copies; the copy is checked and used
//       request->write(0, answer);
//       queue.finish(std::move(*request), sizeof answer);
//     }
//   } while (queue.listen());
//
// which serve_all() does. Requests may be finished later, in any order and on any thread; those that are taken together
// may be answered by complete() each and one signal().
//
// Lock order: the queue's lock is innermost, and held neither while the core is told of code that was overwritten nor
// while the driver is interrupted.
#pragma once

#include <memory>
#include <mutex>
#include <optional>

#include "devices/virtio/request.h"
#include "devices/virtio/ring.h"

namespace trapline::devices::virtio {

class Device;

class Queue {
 public:
  Queue(Device& device, u16 index, Dma& dma) : device_{device}, dma_{dma}, index_{index} {}
  Queue(const Queue&) = delete;

  u16 index() const { return index_; }

  // Nothing: there is none, the queue does not run, or what the driver wrote means nothing (the device asks for a reset
  // then).
  std::optional<Request> next();
  // The device has written at most the request's writable bytes, of which the first `written` are for the driver.
  // Nothing happens once a reset has begun.
  void complete(Request&& request, u32 written);
  // Several that belong together: the driver sees all of them at once.
  void complete(std::span<Given> all);
  // Interrupts the driver if it has asked to be told of what was completed.
  void signal();
  void finish(Request&& request, u32 written) {
    complete(std::move(request), written);
    signal();
  }
  // Ring::hush() and listen().
  void hush();
  bool listen();

  // -- For the device.
  // False: the place cannot be. `life`: Device::fail()'s.
  bool start(const RingPlace& place, const RingPosition& at, u64 features, u64 life);
  void stop();                           // no request is taken or answered any more
  void stop(u64 life);                   // unless it has been started in another
  void rest_at(const RingPosition& at);  // stopped, at that position
  // Taken and not given back: their memory may be in use. A reset is over when there are none.
  u32 in_flight() const;
  bool running() const;
  RingPosition position() const;
  void drop();  // Request's

 private:
  void end_ring();

  Device& device_;
  Dma& dma_;
  const u16 index_;
  mutable std::mutex lock_;     // all that follows
  std::unique_ptr<Ring> ring_;  // null: it does not run
  u64 life_ = 0;                // the ring's
  RingPosition last_;           // of a ring that has stopped
  u32 in_flight_ = 0;
  u16 size_ = 0;
};

template <class Handle>
void serve_all(Queue& queue, Handle handle) {
  do {
    queue.hush();
    while (auto request = queue.next()) handle(std::move(*request));
  } while (queue.listen());
}

}  // namespace trapline::devices::virtio
