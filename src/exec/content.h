// What becomes a file of an archive: bytes, or the beginning of a file of the host's, which is not read before it is
// copied.
#pragma once

#include <memory>
#include <vector>

#include "base/types.h"

namespace trapline::exec {

class Content {
 public:
  Content() = default;
  Content(std::vector<u8> bytes) : bytes_{std::move(bytes)} {}
  // `fd` is kept and closed with the last copy; reading starts at 0 whatever its position.
  Content(int fd, u64 size);

  u64 size() const { return file_ ? size_ : bytes_.size(); }
  // Appends it to the file `to`. False: errno says why, or the file has become shorter.
  bool write_to(int to) const;

 private:
  std::vector<u8> bytes_;
  std::shared_ptr<const int> file_;
  u64 size_ = 0;
};

// All of it, at the file's position.
bool write_whole(int fd, const void* bytes, u64 size);

}  // namespace trapline::exec
