// A network behind a stream socket, with the framing that QEMU, passt and others have: a frame's length in four bytes,
// big-endian, then the frame. What comes in is read by a thread of its own.
#pragma once

#include <vector>

#include "monitor/network/link.h"

namespace trapline::monitor {

class StreamLink final : public NetLink {
 public:
  explicit StreamLink(Fd socket);

  void send(std::span<const iovec> frame) override;
  void receive(const Deliver& deliver, const std::function<void()>& closed) override;

 private:
  bool deliver_buffered(const Deliver& deliver);

  Fd socket_;
  std::vector<std::byte> buffer_;  // read, and not delivered yet: from `first_` to `end_`
  std::size_t first_ = 0, end_ = 0;
  std::atomic<bool> broken_{false};
};

}  // namespace trapline::monitor
