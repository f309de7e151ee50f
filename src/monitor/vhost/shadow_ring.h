// The driver's side of a split ring (VIRTIO 1.2, 2.7) whose device is a vhost-user back end: requests that a guest's ring
// has given, each checked, are made available in memory that monitor and back end share; what comes back is checked
// again. The back end may write anything there at any time, so what must be known is kept here, and the shared words are
// read once.
//
// Chains have tables of their own where the back end knows indirect descriptors. Callers hold a lock.
#pragma once

#include <array>
#include <optional>
#include <vector>

#include "devices/virtio/request.h"

namespace trapline::monitor::vhost {

class ShadowRing {
 public:
  static constexpr u16 kSize = 256;
  static constexpr u64 kTables = 0x3000, kTable = u64{kSize} * sizeof(devices::virtio::Descriptor);
  static constexpr u64 kAvailable = 0x1000, kUsed = 0x2000;  // the table of descriptors is at 0
  static constexpr u64 kBytes = kTables + kSize * kTable;    // of shared memory

  // `memory`: kBytes, which the back end has at the guest address `address`.
  ShadowRing(std::byte* memory, u64 address) : memory_{memory}, address_{address} {}

  // Empty, from index 0 on. Nobody uses it.
  void restart(bool indirect);
  // Not even an empty ring has room for such a chain; or it has no descriptor at all.
  static bool never_fits(const devices::virtio::Request& request);
  // Makes it available, once publish() is called. False: there is no room now, and it was not taken.
  bool push(devices::virtio::Request& request);
  // What was pushed may be seen. True: the back end asks to be told.
  bool publish();

  // `written`: at most the request's writable bytes.
  using Used = devices::virtio::Given;
  enum class Take { used, nothing, broken };
  Take take(Used& used);
  // All that are in flight, as they are: the back end does not use the ring any more.
  std::vector<devices::virtio::Request> clear();
  u16 in_flight() const { return in_flight_; }

 private:
  struct Head {
    std::optional<devices::virtio::Request> request;
    u16 descriptors = 0;  // of the ring, from this one on by next_
  };
  void put(u64 at, const devices::virtio::Segment& segment, u16 flags, u16 next);
  u16 allocate();
  void release(u16 head);

  std::byte* const memory_;
  const u64 address_;
  bool indirect_ = false;
  std::array<Head, kSize> heads_;
  std::array<u16, kSize> next_{};  // of a chain, or of the free ones
  u16 free_ = 0, free_count_ = 0;
  u16 available_ = 0, published_ = 0, seen_ = 0, in_flight_ = 0;
};

}  // namespace trapline::monitor::vhost
