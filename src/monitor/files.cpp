#include "monitor/files.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace trapline::monitor {

namespace {

constexpr u64 kLargestStream = 4 * GiB;  // it is held in memory

using About = VmError::About;
using Reason = VmError::Reason;

// Pipes, sockets, character devices: their bytes, in a memfd.
Result<Fd, VmError> slurp(const Fd& from, const std::string& path, About about, u64 most) {
  const auto wrong = [&](Reason reason, int error = 0) { return Err{VmError{about, reason, path, error, most}}; };
  Fd to{::memfd_create("image", MFD_CLOEXEC)};
  if (!to) return wrong(Reason::no_memory, errno);
  std::vector<char> buffer(256 * KiB);
  for (u64 total = 0;;) {
    const ssize_t n = ::read(from.get(), buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return wrong(Reason::unreadable, errno);
    if (n == 0) break;
    total += static_cast<u64>(n);
    if (total > most) return wrong(Reason::too_large);
    errno = ENOMEM;  // of a short write
    if (::write(to.get(), buffer.data(), static_cast<std::size_t>(n)) != n) return wrong(Reason::no_memory, errno);
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

Result<Fd, VmError> open_image(const std::string& path, About about, u64 most) {
  const auto wrong = [&](Reason reason, int error = 0) { return Err{VmError{about, reason, path, error, most}}; };
  Fd fd{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY)};
  if (!fd) return wrong(Reason::cannot_open, errno);
  struct stat st {};
  if (::fstat(fd.get(), &st) != 0) return wrong(Reason::cannot_open, errno);
  if (S_ISDIR(st.st_mode)) return wrong(Reason::is_directory);
  if (!S_ISREG(st.st_mode)) {
    auto copy = slurp(fd, path, about, std::min(most, kLargestStream));
    if (!copy) return copy;
    fd = std::move(*copy);
    ::fstat(fd.get(), &st);
  }
  if (static_cast<u64>(st.st_size) > most) return wrong(Reason::too_large);
  if (st.st_size == 0) return wrong(Reason::empty);
  return fd;
}

}  // namespace trapline::monitor
