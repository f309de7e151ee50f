// A disk image as a file of the host's: opened and locked once, then used by positions. Errors are errnos.
#pragma once

#include <string>

#include "devices/virtio/disk.h"
#include "machine/config.h"
#include "monitor/files.h"
#include "monitor/storage/nbd_server.h"
#include "monitor/vhost/vhost_peer.h"

namespace trapline::monitor {

// What does the jobs of a disk, one at a time, waiting for each. Several threads may call it at once.
class Image {
 public:
  virtual ~Image() = default;
  virtual int perform(const devices::virtio::DiskJob& job) = 0;
  // The file that asynchronous reads, writes and flushes may go to directly, or -1.
  virtual int direct_fd() const { return -1; }
};

class RawFile final : public Image {
 public:
  explicit RawFile(Fd fd) : fd_{std::move(fd)} {}
  int perform(const devices::virtio::DiskJob& job) override;
  int direct_fd() const override { return fd_.get(); }
  int fd() const { return fd_.get(); }

 private:
  int zero(const devices::virtio::DiskJob& job);
  Fd fd_;
};

// Of `data` the part [skip, skip + bytes).
std::vector<iovec> part_of(const std::vector<iovec>& data, u64 skip, u64 bytes);
// All of it, however often the kernel stops short. An end of the file in the middle is EIO.
int read_vectors(int fd, std::vector<iovec> data, u64 offset);
int write_vectors(int fd, std::vector<iovec> data, u64 offset, int flags);

struct OpenDisk {
  std::unique_ptr<Image> image;  // one of these three
  std::unique_ptr<NbdServer> server;
  std::unique_ptr<vhost::Peer> peer;
  devices::virtio::Disk::Facts facts;
};
// By the thread that lives as long as the disk. Error: one line that names file and remedy.
Result<OpenDisk, VmError> open_disk(const machine::DiskConfig& config);

}  // namespace trapline::monitor
