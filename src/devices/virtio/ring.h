// A queue's ring in guest memory, in one of the two formats. The driver is hostile: every index and length is read once
// and checked. Callers hold the queue's lock.
#pragma once

#include <memory>

#include "devices/virtio/dma.h"
#include "devices/virtio/request.h"

namespace trapline::devices::virtio {

// What the driver has set up: where the three areas are.
struct RingPlace {
  Gpa descriptors;  // split: the table; packed: the ring
  Gpa driver;       // split: available; packed: the driver's event suppression
  Gpa device;       // split: used; packed: the device's event suppression
  u16 size = 0;     // entries
  bool operator==(const RingPlace&) const = default;
};

// How far both sides are. Split: indexes modulo 2^16. Packed: positions in the ring, and wrap counters.
struct RingPosition {
  u16 taken = 0, given = 0;
  u16 told = 0;  // `given` when the driver was last told, or it was decided not to
  bool taken_wrap = true, given_wrap = true, told_wrap = true;
  bool operator==(const RingPosition&) const = default;
};

class Ring {
 public:
  enum class Take { request, nothing, broken };

  virtual ~Ring() = default;
  // The next request, into an empty one. `broken`: what the driver wrote means nothing; the device needs a reset.
  virtual Take take(Request& request) = 0;
  // Done with these: the driver sees all of them at once, or none.
  virtual void give(std::span<const Given> all) = 0;
  // Has the driver asked for an interrupt for what was given since the last call?
  virtual bool wants_interrupt() = 0;
  // While requests are being taken notifications are of no use; after listen() they come. True: there is more to take.
  virtual void hush() = 0;
  virtual bool listen() = 0;

  const RingPosition& position() const { return at_; }

 protected:
  Ring(Dma& dma, u16 size, u64 features, const RingPosition& at);
  Dma& dma_;
  const u16 size_;                // entries
  const bool indirect_, events_;  // negotiated: indirect descriptors, event index
  RingPosition at_;
};

// Null: the areas are not RAM, or not aligned, or the size cannot be.
std::unique_ptr<Ring> make_split_ring(Dma& dma, const RingPlace& place, const RingPosition& at, u64 features);
std::unique_ptr<Ring> make_packed_ring(Dma& dma, const RingPlace& place, const RingPosition& at, u64 features);

// 2.7.5.3.1: the table that an indirect descriptor points to, in which chains may not be indirect again.
enum class TableOrder { linked, consecutive };  // split: by `next`; packed: all of it, in order
bool add_indirect(const Dma& dma, Gpa address, u32 length, u16 most, TableOrder order, Request& request);

}  // namespace trapline::devices::virtio
