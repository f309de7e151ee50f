// A network behind a stream socket, with the framing that QEMU, passt and others have: a frame's length in four bytes,
// big-endian, then the frame. What comes in is read by a thread of its own.
#pragma once

#include <vector>

#include "monitor/network/link.h"

namespace trapline::monitor {

class StreamLink final : public NetLink {
 public:
  enum class Segments { of_the_wire, of_any_size };
  explicit StreamLink(Fd socket, Segments segments = Segments::of_the_wire);

  void send(std::span<const iovec> frame) override;
  bool takes_large() const override { return segments_ == Segments::of_any_size; }
  void receive(const Deliver& deliver, const std::function<void()>& closed) override;

 private:
  bool deliver_buffered(const Deliver& deliver);

  Fd socket_;
  const Segments segments_;
  std::vector<std::byte> buffer_;  // read, and not delivered yet: from `first_` to `end_`
  std::size_t first_ = 0, end_ = 0;
  std::vector<Frame> frames_;  // those that are whole
  std::atomic<bool> broken_{false};
};

}  // namespace trapline::monitor
