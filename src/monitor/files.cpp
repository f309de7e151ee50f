#include "monitor/files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/host_refused.h"

namespace trapline::monitor {

namespace {

constexpr u64 kLargestStream = 4 * GiB;  // it is held in memory

std::string too_large(const std::string& path, const char* what, u64 most) {
  return fmt::format("{} {}: over {} MiB: give a smaller file", what, path, most / MiB);
}

// Pipes, sockets, character devices: their bytes, in a memfd.
Result<Fd, std::string> slurp(const Fd& from, const std::string& path, const char* what, u64 most) {
  Fd to{::memfd_create("image", MFD_CLOEXEC)};
  if (!to)
    return Err{fmt::format("{} {}: no memory to hold it: {}: give a regular file", what, path, std::strerror(errno))};
  std::vector<char> buffer(256 * KiB);
  for (u64 total = 0;;) {
    const ssize_t n = ::read(from.get(), buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Err{fmt::format("{} {}: {}: give a regular file", what, path, std::strerror(errno))};
    if (n == 0) break;
    total += static_cast<u64>(n);
    if (total > most) return Err{too_large(path, what, most)};
    if (::write(to.get(), buffer.data(), static_cast<std::size_t>(n)) != n)
      return Err{fmt::format("{} {}: no memory to hold it: give a regular file", what, path)};
  }
  return to;
}

}  // namespace

Fd& Fd::operator=(Fd&& o) noexcept {
  std::swap(fd_, o.fd_);
  return *this;
}

Fd::~Fd() {
  if (fd_ >= 0) ::close(fd_);
}

int Fd::release() { return std::exchange(fd_, -1); }

Result<Fd, std::string> open_image(const std::string& path, const char* what, u64 most) {
  Fd fd{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY)};
  if (!fd && (errno == EMFILE || errno == ENFILE || errno == ENOMEM))
    throw HostRefused{
        fmt::format("{} {}: {}: raise the limit of open files (ulimit -n)", what, path, std::strerror(errno))};
  if (!fd) {
    const char* remedy = errno == ENOENT   ? "check the path"
                         : errno == EACCES ? "make it readable for this user"
                                           : "give another file";
    return Err{fmt::format("{} {}: {}: {}", what, path.empty() ? "''" : path, std::strerror(errno), remedy)};
  }
  struct stat st {};
  if (::fstat(fd.get(), &st) != 0)
    return Err{fmt::format("{} {}: {}: give another file", what, path, std::strerror(errno))};
  if (S_ISDIR(st.st_mode)) return Err{fmt::format("{} {}: is a directory: name the file in it", what, path)};
  if (!S_ISREG(st.st_mode)) {
    auto copy = slurp(fd, path, what, std::min(most, kLargestStream));
    if (!copy) return copy;
    fd = std::move(*copy);
    ::fstat(fd.get(), &st);
  }
  if (static_cast<u64>(st.st_size) > most) return Err{too_large(path, what, most)};
  if (st.st_size == 0) return Err{fmt::format("{} {}: is empty: give a file with an image in it", what, path)};
  return fd;
}

}  // namespace trapline::monitor
