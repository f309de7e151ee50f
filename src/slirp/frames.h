// The process's end of the stream: frames behind their lengths, never waiting. What the monitor does not take in time
// is lost from a bound on; TCP sends it again.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "base/types.h"

namespace trapline::slirp {

class Frames {
 public:
  static constexpr u32 kLargest = 65550;
  explicit Frames(int socket) : socket_{socket}, in_(4 * (kLargest + 4)) {}

  // Whatever has come, frame by frame, to `use(bytes)`. False: the other end is gone, or does not keep to the framing.
  template <class Use>
  bool receive(Use use) {
    if (!fill()) return false;
    while (const auto frame = next()) use(*frame);
    return !broken_;
  }
  void send(std::span<const u8> frame);
  void flush();
  bool waiting() const { return sent_ != out_.size(); }

 private:
  bool fill();
  std::optional<std::span<const u8>> next();

  int socket_;
  std::vector<u8> in_, out_;
  std::size_t first_ = 0, end_ = 0, sent_ = 0;
  bool broken_ = false;
};

}  // namespace trapline::slirp
