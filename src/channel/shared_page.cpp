#include "channel/shared_page.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

namespace trapline::channel {

Result<SharedMemory, std::string> SharedMemory::create(const char* name, u64 bytes) {
  SharedMemory m;
  m.fd_ = ::memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
  void* at = MAP_FAILED;
  if (m.fd_ >= 0 && ::ftruncate(m.fd_, static_cast<off_t>(bytes)) == 0)
    at = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, m.fd_, 0);
  if (at == MAP_FAILED) return Err{fmt::format("{}: no shared memory: {}", name, std::strerror(errno))};
  m.data_ = at;
  m.bytes_ = bytes;
  // Without the seal a core that was taken over could mislead itself: the monitor never reads such memory.
  ::fcntl(m.fd_, F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
  return m;
}

const void* SharedMemory::attach(int fd, u64 bytes) {
  const void* at = ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fd, 0);
  return at == MAP_FAILED ? nullptr : at;
}

SharedMemory::SharedMemory(SharedMemory&& o) noexcept
    : data_{std::exchange(o.data_, nullptr)}, bytes_{std::exchange(o.bytes_, 0)}, fd_{std::exchange(o.fd_, -1)} {}

SharedMemory& SharedMemory::operator=(SharedMemory&& o) noexcept {
  std::swap(data_, o.data_);
  std::swap(bytes_, o.bytes_);
  std::swap(fd_, o.fd_);
  return *this;
}

SharedMemory::~SharedMemory() {
  if (data_) ::munmap(data_, bytes_);
  if (fd_ >= 0) ::close(fd_);
}

}  // namespace trapline::channel
