// The files a VM is made of: opened and looked at by the monitor, read by the core.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "base/types.h"
#include "monitor/vm_error.h"

namespace trapline::monitor {

// An owned descriptor.
class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_{fd} {}
  Fd(Fd&& o) noexcept : fd_{o.release()} {}
  Fd& operator=(Fd&& o) noexcept;
  ~Fd();
  int get() const { return fd_; }
  int release();
  explicit operator bool() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

// Opens an image for the core: a regular, non-empty, readable file. A pipe or device is read to its end into memory
// first. `about`: whose it is. More than `most` bytes are refused.
Result<Fd, VmError> open_image(const std::string& path, VmError::About about, u64 most);

}  // namespace trapline::monitor
