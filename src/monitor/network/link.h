// The network behind a device, as the monitor has it: frames go out on the device's worker, come in on a thread of the
// link's own.
#pragma once

#include <atomic>
#include <functional>

#include "devices/virtio/net.h"
#include "monitor/files.h"

namespace trapline::monitor {

class NetLink : public devices::virtio::FrameSink {
 public:
  // Throws HostRefused.
  NetLink();
  // The receiving thread: until stop(), gives frames to `deliver`, which says how many it has taken, again and again until
  // all are; between two tries it waits for retry(). `closed`: the other end is gone, or does not keep to the framing.
  using Frame = devices::virtio::Net::Frame;
  using Deliver = std::function<std::size_t(std::span<const Frame>)>;
  virtual void receive(const Deliver& deliver, const std::function<void()>& closed) = 0;

  void start() { stopping_ = false; }
  void retry() { wake(); }
  // Any thread; also frees one that waits in send().
  void stop();
  // System calls of both threads, beside the common ones.
  static std::vector<int> calls();

 protected:
  bool stopping() const { return stopping_; }
  // Until there is input on `fd` (-1: not waited for), or wake(). False: stopping.
  bool await(int fd);

 private:
  void wake();
  Fd wake_;  // an eventfd
  std::atomic<bool> stopping_{false};
};

}  // namespace trapline::monitor
