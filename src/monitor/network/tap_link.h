// A descriptor of which each read and each write is a frame: a TAP interface of the host's. Its frames have headers by
// which checksums and segmentation are the host's (virtio/net_header.h), as far as that likes.
#pragma once

#include <vector>

#include "monitor/network/link.h"

namespace trapline::monitor {

class TapLink final : public NetLink {
 public:
  TapLink(Fd tap, bool headers);
  void send(std::span<const iovec> frame) override;
  bool has_headers() const override { return headers_; }
  void receive(const Deliver& deliver, const std::function<void()>& closed) override;

 private:
  Fd tap_;
  const bool headers_;
  std::vector<std::byte> frame_;
};

// Frames have headers. The interface must be there and belong to this user (ip tuntap add mode tap user NAME). Error: one
// line.
Result<Fd, VmError> open_tap(const std::string& interface);

}  // namespace trapline::monitor
