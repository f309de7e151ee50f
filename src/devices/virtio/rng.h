// The entropy device (VIRTIO 1.2, 5.4): fills what it is given with random bytes.
#pragma once

#include <functional>

#include "devices/virtio/device.h"

namespace trapline::devices::virtio {

class Rng final : public Backend {
 public:
  // Fills the bytes with chance; returns how many it has filled, from the first on.
  using Source = std::function<std::size_t(std::span<std::byte>)>;
  explicit Rng(Source source);
  void serve(unsigned queue) override;

 private:
  Source source_;
};

}  // namespace trapline::devices::virtio
