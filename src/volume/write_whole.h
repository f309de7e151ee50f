// All of some bytes to a descriptor.
#pragma once

#include <unistd.h>

#include <cerrno>
#include <span>

#include "base/types.h"

namespace trapline::volume {

// False: it takes no more. SIGPIPE is the caller's to ignore.
inline bool write_whole(int fd, std::span<const u8> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
  return true;
}

}  // namespace trapline::volume
