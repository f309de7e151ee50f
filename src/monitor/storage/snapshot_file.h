// `snapshot`: an image that is read, with what the guest writes in a file without a name, which goes with the VM.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/result.h"
#include "monitor/storage/raw_file.h"

namespace trapline::monitor {

class SnapshotFile final : public Image {
 public:
  // Error: what is wrong, and the remedy.
  static Result<std::unique_ptr<SnapshotFile>, VmError> create(Fd base, u64 bytes);
  int perform(const devices::virtio::DiskJob& job) override;

 private:
  static constexpr u64 kCluster = 4096;  // what is copied when a part of it is written
  SnapshotFile(Fd base, Fd changes, u64 bytes);
  bool changed(u64 cluster) const { return changed_[cluster]; }
  int read(std::vector<iovec> data, u64 offset, u64 bytes);
  int write(std::vector<iovec> data, u64 offset, u64 bytes);
  int zero(u64 offset, u64 bytes);
  int copy_up(u64 cluster);

  Fd base_, changes_;
  u64 bytes_;
  std::mutex lock_;
  std::vector<bool> changed_;  // by cluster; under lock_
};

}  // namespace trapline::monitor
