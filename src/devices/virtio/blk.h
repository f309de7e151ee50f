// The block device: VIRTIO 1.2, 5.2. Parses requests and makes jobs for a Disk of them.
#pragma once

#include <atomic>

#include "devices/virtio/device.h"
#include "devices/virtio/disk.h"

namespace trapline::devices::virtio {

class Blk final : public Backend, public Disk::Listener {
 public:
  Blk(std::unique_ptr<Disk> disk, unsigned queues);

  void read_config(u64 offset, std::span<u8> out) const override;
  void start(u64 features) override;
  std::vector<u8> save() const override { return bytes_of(through_.load()); }
  void restore(std::span<const u8> state, u64) override { through_ = plain_from<u8>(state) != 0; }
  void serve(unsigned queue) override;
  void settle() override { disk_->settle(); }
  void some_done() override;

 private:
  struct Job;
  struct Header {
    u32 type, reserved;
    u64 sector;
  };
  void handle(unsigned queue, Request&& request);
  bool set_up_transfer(Job& job, const Header& header);
  bool set_up_range(Job& job, const Header& header);
  bool inside(u64 sector, u64 bytes) const;
  void answer(unsigned queue, Request&& request, u8 status, u64 written);
  void answer_id(unsigned queue, Request&& request);

  std::unique_ptr<Disk> disk_;
  std::atomic<bool> through_{false};  // the driver cannot flush: each write is on stable storage when it is done
  std::atomic<u64> told_{0};          // queues with answers of which the driver has not been told
};

}  // namespace trapline::devices::virtio
