// The memory balloon (VIRTIO 1.2, 5.5): the guest gives memory back that it does not use: up to a target that the host
// sets, and by itself what is free (page reporting). Both are holes in guest RAM from then on.
#pragma once

#include "devices/virtio/device.h"

namespace trapline::devices::virtio {

class Balloon final : public Backend {
 public:
  explicit Balloon(Dma& dma);

  // How much the guest shall give away. Any thread but one that holds the machine's lock.
  void set_target(u64 bytes);
  void set_first_target(u64 bytes) { pages_ = static_cast<u32>(bytes / kPage); }  // before there is a driver
  u64 target() const { return u64{pages_} * kPage; }
  u64 actual() const { return u64{actual_} * kPage; }  // as the guest says

  void read_config(u64 offset, std::span<u8> out) const override;
  void write_config(u64 offset, std::span<const u8> in) override;
  void start(u64) override { actual_ = 0; }
  std::vector<u8> save() const override { return bytes_of(Sizes{pages_, actual_}); }
  void restore(std::span<const u8> state, u64) override {
    const auto sizes = plain_from<Sizes>(state);
    pages_ = sizes.pages, actual_ = sizes.actual;
  }
  void serve(unsigned queue) override;

 private:
  static constexpr u64 kPage = 4096;
  struct Sizes {  // in pages: the target, and what the guest says
    u32 pages, actual;
  };
  // No statistics and no hints are offered, so the queue of reports comes right after these.
  enum Queues : unsigned { inflate = 0, deflate = 1, report = 2 };
  void take_away(const Request& request);

  Dma& dma_;
  std::atomic<u32> pages_{0}, actual_{0};
};

}  // namespace trapline::devices::virtio
