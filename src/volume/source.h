// The bytes of a disk as its guest sees them, read at any place.
#pragma once

#include <sys/types.h>
#include <unistd.h>

#include <cerrno>
#include <span>

#include "base/types.h"

namespace trapline::volume {

class Source {
 public:
  virtual ~Source() = default;
  virtual u64 size() const = 0;
  // All of `to`, or false: past the end, or an error of the host's.
  virtual bool read(u64 offset, std::span<u8> to) const = 0;
};

class FileSource final : public Source {
 public:
  explicit FileSource(int fd) : fd_{fd}, size_{::lseek(fd, 0, SEEK_END)} {}
  u64 size() const override { return size_ > 0 ? static_cast<u64>(size_) : 0; }
  bool read(u64 offset, std::span<u8> to) const override {
    if (offset > size() || to.size() > size() - offset) return false;
    while (!to.empty()) {
      const ssize_t n = ::pread(fd_, to.data(), to.size(), static_cast<off_t>(offset));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return false;
      offset += static_cast<u64>(n);
      to = to.subspan(static_cast<std::size_t>(n));
    }
    return true;
  }

 private:
  int fd_;
  off_t size_;
};

}  // namespace trapline::volume
