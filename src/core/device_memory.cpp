#include "core/device_memory.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <new>
#include <utility>

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

namespace trapline::core {

Result<DeviceMemory, std::string> DeviceMemory::create() {
  DeviceMemory m;
  m.fd_ = ::memfd_create("devices", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  void* at = MAP_FAILED;
  if (m.fd_ >= 0 && ::ftruncate(m.fd_, sizeof(machine::DevicePage)) == 0)
    at = ::mmap(nullptr, sizeof(machine::DevicePage), PROT_READ | PROT_WRITE, MAP_SHARED, m.fd_, 0);
  if (at == MAP_FAILED) return Err{fmt::format("device page: {}", std::strerror(errno))};
  m.page_ = new (at) machine::DevicePage;
  // Without the seal a core that was taken over could mislead itself: the monitor never reads the page.
  ::fcntl(m.fd_, F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
  return m;
}

const machine::DevicePage* DeviceMemory::attach(int fd) {
  void* at = ::mmap(nullptr, sizeof(machine::DevicePage), PROT_READ, MAP_SHARED, fd, 0);
  return at == MAP_FAILED ? nullptr : static_cast<const machine::DevicePage*>(at);
}

DeviceMemory::DeviceMemory(DeviceMemory&& o) noexcept
    : page_{std::exchange(o.page_, nullptr)}, fd_{std::exchange(o.fd_, -1)} {}

DeviceMemory& DeviceMemory::operator=(DeviceMemory&& o) noexcept {
  std::swap(page_, o.page_);
  std::swap(fd_, o.fd_);
  return *this;
}

DeviceMemory::~DeviceMemory() {
  if (page_) ::munmap(page_, sizeof *page_);
  if (fd_ >= 0) ::close(fd_);
}

}  // namespace trapline::core
