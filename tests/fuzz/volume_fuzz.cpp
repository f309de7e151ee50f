// Partition tables, and the way from them to kernel and initrd, over any bytes: the disk is the input, and behind it
// zeros, as in an image that is mostly empty. The file system itself is libext2fs's, which is not instrumented; that it
// has no say outside of its partition is.
#include <algorithm>
#include <cstdlib>
#include <vector>

#include "base/types.h"
#include "volume/boot_files.h"

namespace {

using namespace trapline;

class InputDisk final : public volume::Source {
 public:
  InputDisk(const u8* data, std::size_t size) : data_{data}, input_{size} {}
  u64 size() const override { return input_ + kBehind; }
  bool read(u64 offset, std::span<u8> to) const override {
    if (offset > size() || to.size() > size() - offset) return false;
    for (std::size_t i = 0; i < to.size(); i++) to[i] = offset + i < input_ ? data_[offset + i] : 0;
    return true;
  }

 private:
  static constexpr u64 kBehind = MiB;
  const u8* data_;
  std::size_t input_;
};

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  if (!volume::load_ext_library()) std::abort();
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
  const InputDisk disk{data, size};
  volume::looks_like_a_disk(disk);
  for (const volume::Partition& p : volume::partitions_of(disk))
    if (p.first > disk.size() || p.bytes > disk.size() - p.first || p.number > volume::kMostPartitions) std::abort();
  u64 taken = 0;
  const auto take = [&](std::span<const u8> bytes) { return (taken += bytes.size()) < 16 * MiB; };
  const auto files = volume::read_boot_files(disk, {}, take, take);
  if (!files && files.error().empty()) std::abort();
  return 0;
}
