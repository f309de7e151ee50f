// A descriptor of which each read and each write is a frame: a TAP interface of the host's.
#pragma once

#include <vector>

#include "monitor/network/link.h"

namespace trapline::monitor {

class TapLink final : public NetLink {
 public:
  explicit TapLink(Fd tap);
  void send(std::span<const iovec> frame) override;
  void receive(const Deliver& deliver, const std::function<void()>& closed) override;

 private:
  Fd tap_;
  std::vector<std::byte> frame_;
};

// The interface must be there and belong to this user (ip tuntap add mode tap user NAME). Error: one line.
Result<Fd, VmError> open_tap(const std::string& interface);

}  // namespace trapline::monitor
