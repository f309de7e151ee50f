// The network device: VIRTIO 1.2, 5.1. One pair of queues, mergeable receive buffers, no offloads: frames go on as the
// guest made them.
#pragma once

#include <sys/uio.h>

#include <array>
#include <functional>
#include <mutex>

#include "devices/virtio/device.h"

namespace trapline::devices::virtio {

using MacAddress = std::array<u8, 6>;

// Where frames go (Ethernet, without FCS).
struct FrameSink {
  virtual ~FrameSink() = default;
  // The worker's thread; may wait for a slow reader. A frame that cannot be sent is lost, as on a wire.
  virtual void send(std::span<const iovec> frame) = 0;
};

class Net final : public Backend {
 public:
  static constexpr u64 kLargestFrame = 65550;
  struct Settings {
    MacAddress mac{};
    u16 mtu = 1500;
  };
  // `buffers_came`: after deliver() had found none; any thread.
  Net(const Settings& settings, FrameSink& sink, std::function<void()> buffers_came);

  void read_config(u64 offset, std::span<u8> out) const override;
  void start(u64 features) override;
  void stop() override;
  std::vector<u8> save() const override;
  void restore(std::span<const u8> state, u64 features) override;
  void serve(unsigned queue) override;

  // A frame for the guest, from one thread at a time. False: the guest has no room now; `buffers_came` follows when it
  // has, and the same frame may be tried again. A frame that no buffer can take is lost.
  bool deliver(std::span<const std::byte> frame);
  // The other end is there or is not. Any thread but one that holds the machine's lock.
  void set_link(bool up);

 private:
  enum Queues : unsigned { receive = 0, transmit = 1 };
  enum class Room { enough, none, never };
  Room collect(u64 bytes);  // under lock_
  void fill(std::vector<Request> buffers, std::span<const std::byte> frame);
  void send(Request&& request);

  const Settings settings_;
  FrameSink& sink_;
  const std::function<void()> buffers_came_;
  std::atomic<bool> up_{true};
  mutable std::mutex lock_;         // not held while a request is completed
  std::vector<Request> collected_;  // receive buffers that do not suffice yet
  bool running_ = false, mergeable_ = false;
};

}  // namespace trapline::devices::virtio
