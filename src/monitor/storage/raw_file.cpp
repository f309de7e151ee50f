#include "monitor/storage/raw_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <functional>

#include "monitor/storage/qcow2.h"
#include "monitor/storage/snapshot_file.h"

namespace trapline::monitor {

namespace {

using devices::virtio::DiskJob;

// Takes `done` bytes off the front.
void advance(std::vector<iovec>& data, u64 done) {
  std::size_t whole = 0;
  while (whole < data.size() && done >= data[whole].iov_len) done -= data[whole++].iov_len;
  data.erase(data.begin(), data.begin() + static_cast<std::ptrdiff_t>(whole));
  if (data.empty()) return;
  data[0].iov_base = static_cast<char*>(data[0].iov_base) + done;
  data[0].iov_len -= done;
}

template <class Call>
int all(std::vector<iovec>& data, u64 offset, Call call) {
  while (!data.empty()) {
    const ssize_t n = call(data, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno;
    if (n == 0) return EIO;
    advance(data, static_cast<u64>(n));
    offset += static_cast<u64>(n);
  }
  return 0;
}

// One VM at a time writes to an image; any number may read one that nobody writes to. The lock goes with the file.
bool lock(int fd, bool shared) {
  struct flock whole {};
  whole.l_type = shared ? F_RDLCK : F_WRLCK;
  whole.l_whence = SEEK_SET;
  return ::fcntl(fd, F_OFD_SETLK, &whole) == 0 || (errno != EAGAIN && errno != EACCES);
}

}  // namespace

std::vector<iovec> part_of(const std::vector<iovec>& data, u64 skip, u64 bytes) {
  std::vector<iovec> some;
  for (const iovec& v : data) {
    if (bytes == 0) break;
    if (skip >= v.iov_len) {
      skip -= v.iov_len;
      continue;
    }
    const u64 n = std::min<u64>(bytes, v.iov_len - skip);
    some.push_back({static_cast<char*>(v.iov_base) + skip, n});
    bytes -= n;
    skip = 0;
  }
  return some;
}

int read_vectors(int fd, std::vector<iovec> data, u64 offset) {
  return all(data, offset, [fd](const std::vector<iovec>& v, off_t at) {
    return ::preadv(fd, v.data(), static_cast<int>(v.size()), at);
  });
}

int write_vectors(int fd, std::vector<iovec> data, u64 offset, int flags) {
  return all(data, offset, [fd, flags](const std::vector<iovec>& v, off_t at) {
    return ::pwritev2(fd, v.data(), static_cast<int>(v.size()), at, flags);
  });
}

int RawFile::perform(const DiskJob& job) {
  switch (job.kind) {
    case DiskJob::Kind::read:
      return read_vectors(fd(), job.data, job.offset);
    case DiskJob::Kind::write:
      return write_vectors(fd(), job.data, job.offset, job.through ? RWF_DSYNC : 0);
    case DiskJob::Kind::flush:
      return ::fdatasync(fd()) == 0 ? 0 : errno;
    case DiskJob::Kind::discard:  // a hint: a file system that cannot do it loses nothing
      ::fallocate(fd(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(job.offset),
                  static_cast<off_t>(job.bytes));
      return 0;
    case DiskJob::Kind::write_zeroes: {
      const int error = job.bytes == 0 ? 0 : zero(job);
      return error == 0 && job.through && ::fdatasync(fd()) != 0 ? errno : error;
    }
  }
  return EINVAL;
}

int RawFile::zero(const DiskJob& job) {
  const auto offset = static_cast<off_t>(job.offset), bytes = static_cast<off_t>(job.bytes);
  if (job.unmap && ::fallocate(fd(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, bytes) == 0) return 0;
  if (::fallocate(fd(), FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, offset, bytes) == 0) return 0;
  if (errno == ENOSPC || errno == EIO) return errno;
  static const std::array<char, 65536> zeros{};
  for (u64 done = 0; done < job.bytes;) {
    const u64 n = std::min<u64>(zeros.size(), job.bytes - done);
    if (const int error = write_vectors(fd(), {{const_cast<char*>(zeros.data()), n}}, job.offset + done, 0))
      return error;
    done += n;
  }
  return 0;
}

namespace {

using About = VmError::About;
using Reason = VmError::Reason;

Err<VmError> wrong(Reason reason, int error = 0) { return {VmError{About::disk, reason, {}, error}}; }

Result<OpenDisk, VmError> open_raw(Fd fd, const machine::DiskConfig& config) {
  const bool writes = !config.read_only && !config.snapshot;
  const off_t end = ::lseek(fd.get(), 0, SEEK_END);
  if (end < 512) return wrong(Reason::too_small);
  if (!lock(fd.get(), !writes)) return wrong(Reason::in_use);
  OpenDisk disk;
  disk.facts.bytes = static_cast<u64>(end) / 512 * 512;
  if (!config.snapshot) {
    disk.image = std::make_unique<RawFile>(std::move(fd));
    return disk;
  }
  auto snapshot = SnapshotFile::create(std::move(fd), disk.facts.bytes);
  if (!snapshot) return Err{snapshot.error()};
  disk.image = std::move(*snapshot);
  return disk;
}

Result<OpenDisk, VmError> open_qcow2(const machine::DiskConfig& config) {
  auto server = serve_qcow2(config);
  if (!server) return Err{server.error()};
  OpenDisk disk;
  disk.facts.bytes = server->info.bytes / 512 * 512;
  disk.server = std::make_unique<NbdServer>(std::move(*server));
  return disk;
}

// Whose path it is, the caller says.
Result<OpenDisk, VmError> open_any(const machine::DiskConfig& config) {
  const bool writes = !config.read_only && !config.snapshot;
  Fd fd{::open(config.path.c_str(), (writes ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NOCTTY)};
  if (!fd && writes && (errno == EACCES || errno == EROFS)) return wrong(Reason::not_writable, errno);
  if (!fd) return wrong(Reason::cannot_open, errno);
  struct stat st {};
  if (::fstat(fd.get(), &st) != 0 || (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))) return wrong(Reason::no_disk);
  const auto format = format_of(config, fd.get());
  if (!format) return Err{format.error()};
  auto disk = *format == machine::DiskFormat::qcow2 ? open_qcow2(config) : open_raw(std::move(fd), config);
  if (!disk) return disk;
  disk->facts.read_only = config.read_only;
  disk->facts.discards = config.discard && !config.read_only;
  disk->facts.serial = config.serial;
  return disk;
}

}  // namespace

Result<OpenDisk, VmError> open_disk(const machine::DiskConfig& config) {
  if (config.vhost_user) {
    auto peer = vhost::open_disk_peer(config);
    if (!peer) return Err{peer.error()};
    OpenDisk disk;
    disk.peer = std::move(*peer);
    return disk;
  }
  auto disk = open_any(config);
  if (disk) return disk;
  VmError error = disk.error();
  error.value = config.path;
  return Err{std::move(error)};
}

}  // namespace trapline::monitor
