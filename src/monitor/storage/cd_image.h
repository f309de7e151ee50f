// The file behind --cdrom: whole blocks of 2048 bytes, the last filled up with zeros. Reads are done in the guest's access,
// on the thread that serves it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "devices/atapi.h"
#include "monitor/files.h"

namespace trapline::monitor {

class CdFile final : public devices::CdImage {
 public:
  // Error: one line that names the option and the remedy.
  static Result<std::unique_ptr<CdFile>, VmError> open(const std::string& path);
  static std::vector<int> calls();  // system calls that read() makes

  u32 blocks() const override { return blocks_; }
  bool read(u32 block, std::span<u8, devices::kCdBlock> to) override;

 private:
  CdFile(Fd fd, u32 blocks) : fd_{std::move(fd)}, blocks_{blocks} {}
  Fd fd_;
  u32 blocks_;
};

}  // namespace trapline::monitor
