// The network device: VIRTIO 1.2, 5.1. One pair of queues, mergeable receive buffers. Checksums and the cutting of large
// TCP segments are done here (net_offload.h) or by the other end, where that takes the device's headers.
#pragma once

#include <sys/uio.h>

#include <array>
#include <functional>
#include <mutex>

#include "devices/virtio/device.h"
#include "devices/virtio/net_header.h"

namespace trapline::devices::virtio {

using MacAddress = std::array<u8, 6>;

// Where frames go (Ethernet, without FCS).
struct FrameSink {
  virtual ~FrameSink() = default;
  // The worker's thread; may wait for a slow reader. A frame that cannot be sent is lost, as on a wire.
  virtual void send(std::span<const iovec> frame) = 0;
  // Frames have a NetHeader before them both ways, and what that asks for is done there.
  virtual bool has_headers() const { return false; }
  // There is no wire: TCP segments may be as large as packets are.
  virtual bool takes_large() const { return false; }
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
  bool accepts(u64 features) const override;
  void start(u64 features) override;
  void stop() override;
  std::vector<u8> save() const override;
  void restore(std::span<const u8> state, u64 features) override;
  void serve(unsigned queue) override;

  // A frame for the guest (behind its header, if the sink has those), from one thread at a time. False: the guest has no
  // room now; `buffers_came` follows when it
  // has, and the same frame may be tried again. A frame that no buffer can take is lost.
  bool deliver(std::span<const std::byte> frame);
  // Several at once, which become large segments where the driver takes those. How many were taken.
  using Frame = std::span<const std::byte>;
  std::size_t deliver(std::span<const Frame> frames);
  // The other end is there or is not. Any thread but one that holds the machine's lock.
  void set_link(bool up);

 private:
  enum Queues : unsigned { receive = 0, transmit = 1 };
  enum class Room { enough, none, never };
  Room collect(u64 bytes);  // under lock_
  void use(u64 features);   // under lock_
  bool takes(const NetHeader& header) const;
  bool hand_over(std::span<const std::byte> frame);
  bool put(const NetHeader& header, std::span<const std::byte> frame);
  void fill(std::vector<Request> buffers, NetHeader header, std::span<const std::byte> frame);
  void send(Request&& request);
  void send_finished(const Request& request, NetHeader header);

  const Settings settings_;
  FrameSink& sink_;
  const std::function<void()> buffers_came_;
  std::atomic<bool> up_{true};
  mutable std::mutex lock_;         // not held while a request is completed
  std::vector<Request> collected_;  // receive buffers that do not suffice yet
  bool running_ = false, mergeable_ = false;
  std::atomic<u64> features_{0};     // of the driver that runs
  std::vector<std::byte> outgoing_;  // the worker's
  std::vector<std::byte> incoming_;  // deliver()'s
};

}  // namespace trapline::devices::virtio
