#include "exec/content.h"

#include <sys/sendfile.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace trapline::exec {

Content::Content(int fd, u64 size)
    : file_{new int{fd},
            [](const int* f) {
              ::close(*f);
              delete f;
            }},
      size_{size} {}

bool write_whole(int fd, const void* bytes, u64 size) {
  const auto* at = static_cast<const u8*>(bytes);
  while (size > 0) {
    const ssize_t n = ::write(fd, at, size);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    at += n;
    size -= static_cast<u64>(n);
  }
  return true;
}

bool Content::write_to(int to) const {
  if (!file_) return write_whole(to, bytes_.data(), bytes_.size());
  off_t next = 0;
  while (static_cast<u64>(next) < size_) {
    const ssize_t n = ::sendfile(to, *file_, &next, size_ - static_cast<u64>(next));
    if (n > 0 || (n < 0 && errno == EINTR)) continue;
    if (n == 0 || errno != EINVAL) return false;
    break;  // a file system that cannot
  }
  std::array<u8, 64 * KiB> piece;
  while (static_cast<u64>(next) < size_) {
    const ssize_t n = ::pread(*file_, piece.data(), std::min<u64>(piece.size(), size_ - static_cast<u64>(next)), next);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0 || !write_whole(to, piece.data(), static_cast<u64>(n))) return false;
    next += n;
  }
  return true;
}

}  // namespace trapline::exec
