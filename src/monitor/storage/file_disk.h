// A disk of the block device in the monitor: jobs go to an io_uring where the host gives one, else to threads that wait
// for the file system, or to a server by a socket; under --clock instructions each is done at once.
//
// The ring is restricted to what disks need (IORING_REGISTER_RESTRICTIONS), as a filter does not see what goes through
// it. Submissions are the worker's, completions belong to a thread of their own.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>

#include "monitor/storage/raw_file.h"

struct io_uring;

namespace trapline::monitor {

class FileDisk : public devices::virtio::Disk {
 public:
  // What runs on threads of its own until stop(), then ends once it has nothing to do.
  virtual std::vector<std::function<void()>> threads() { return {}; }
  virtual void stop() {}
  // System calls of those threads and of the one that submits.
  virtual std::vector<int> calls() const;
  // Takes one line for the user. Any thread.
  using Complain = std::function<void(const std::string&)>;

  const Facts& facts() const override { return disk_.facts; }
  void attach(Listener& listener) override { listener_ = &listener; }

 protected:
  explicit FileDisk(OpenDisk disk) : disk_{std::move(disk)} {}
  void finish(std::unique_ptr<devices::virtio::DiskJob> job, int error) const { job->done(error); }
  OpenDisk disk_;
  Listener* listener_ = nullptr;
};

enum class DiskMode { asynchronous, at_once };
std::unique_ptr<FileDisk> make_file_disk(OpenDisk disk, DiskMode mode, FileDisk::Complain complain);

// The kinds, for tests. Null: this host refuses io_uring, or the image cannot be used by it.
std::unique_ptr<FileDisk> make_ring_disk(OpenDisk& disk);
std::unique_ptr<FileDisk> make_pool_disk(OpenDisk disk);
std::unique_ptr<FileDisk> make_inline_disk(OpenDisk disk);
// Over OpenDisk::server.
std::unique_ptr<FileDisk> make_nbd_disk(OpenDisk disk, DiskMode mode, FileDisk::Complain complain);

}  // namespace trapline::monitor
