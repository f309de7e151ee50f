// What the block device asks of a disk, and how it is told that it is done. The disk may do it at once or on threads of
// its own; the memory is guest RAM, which stays where it is until the job is done.
#pragma once

#include <sys/uio.h>

#include <memory>
#include <string>
#include <vector>

#include "base/types.h"

namespace trapline::devices::virtio {

struct DiskJob {
  enum class Kind : u8 { read, write, flush, discard, write_zeroes };
  virtual ~DiskJob() = default;
  // Once, on any thread, also from within submit(). `error`: an errno, or 0. The disk deletes the job after that.
  virtual void done(int error) = 0;

  Kind kind = Kind::flush;
  bool through = false;       // write: on stable storage when it is done
  bool unmap = false;         // write_zeroes: the space may be given back
  u64 offset = 0, bytes = 0;  // within the disk: the device has checked
  std::vector<iovec> data;    // read, write: `bytes` of it
};

class Disk {
 public:
  struct Facts {
    u64 bytes = 0;  // whole sectors of 512
    bool read_only = false, discards = false;
    std::string serial;  // at most 20 bytes
  };
  // Told after some jobs were done: the time to interrupt, once for all of them. Any thread.
  struct Listener {
    virtual ~Listener() = default;
    virtual void some_done() = 0;
  };

  virtual ~Disk() = default;
  virtual const Facts& facts() const = 0;
  // Before the first job.
  virtual void attach(Listener& listener) = 0;
  // -- The worker's thread.
  virtual void submit(std::unique_ptr<DiskJob> job) = 0;
  // What was submitted may start now.
  virtual void go() = 0;
  // -- The machine ends: returns when all is done. No other thread works any more.
  virtual void settle() = 0;
};

}  // namespace trapline::devices::virtio
