// The memory behind machine::DevicePage: a memfd that the monitor writes and the core may only read.
#pragma once

#include <string>

#include "base/result.h"
#include "machine/device_page.h"

namespace trapline::core {

// Movable; unmapped and closed at the end.
class DeviceMemory {
 public:
  // The monitor's. The descriptor maps read-only from now on, wherever the host's kernel can seal it (Linux 5.1).
  static Result<DeviceMemory, std::string> create();
  // The core's, read-only. The descriptor stays the caller's.
  static const machine::DevicePage* attach(int fd);  // null: no address space

  DeviceMemory() = default;
  DeviceMemory(DeviceMemory&& o) noexcept;
  DeviceMemory& operator=(DeviceMemory&& o) noexcept;
  ~DeviceMemory();

  machine::DevicePage* page() const { return page_; }
  int fd() const { return fd_; }

 private:
  machine::DevicePage* page_ = nullptr;
  int fd_ = -1;
};

}  // namespace trapline::core
