// The files that the guest boots from, as the core sees them: mapped, because a loader reads little of them, and brought
// into guest RAM from file to file, because a page that is copied through two mappings costs two page faults first.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "base/addr.h"
#include "base/guest_memory.h"
#include "boot/boot.h"
#include "channel/launch.h"

namespace trapline::core {

// Made while descriptors are open; bring() may run behind lock_down(), which is told of sources() and ram_fd().
class Images {
 public:
  // Maps kernel, initrd and modules of `launch`. Error: "initrd: ...".
  static Result<Images, std::string> open(const channel::Launch& launch);

  boot::BootRequest request(const channel::Launch& launch) const;

  // Bytes of an image to guest RAM at `to`, which lies in one piece of RAM; false: they are of no image here, or the
  // host cannot, and the caller copies. RAM must be as fresh as the host gave it: holes of a file are left out.
  // Error cases end the core (`finish`): the file has become shorter.
  bool bring(boot::Bytes from, const GuestMemory& ram, Gpa to) const;

  // Is it an address of a mapped image? Its file has been cut short if that is where SIGBUS comes from.
  const char* holds(const void* address) const;

  std::vector<int> sources() const;
  int ram_fd() const { return ram_fd_; }

  // Unmaps and closes everything.
  void release();

 private:
  struct Image {
    int fd = -1;
    std::string what;
    boot::Bytes bytes;
  };
  Result<void, std::string> add(int fd, const std::string& what);
  const Image* image_of(boot::Bytes bytes) const;

  std::vector<Image> images_;
  int ram_fd_ = -1;
};

}  // namespace trapline::core
