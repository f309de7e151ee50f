#include "monitor/storage/snapshot_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace trapline::monitor {

namespace {

using devices::virtio::DiskJob;

// On disk where that is possible: a guest may write much.
Fd unnamed_file() {
  for (const char* folder : {static_cast<const char*>(::getenv("TMPDIR")), "/var/tmp", "/tmp"}) {
    if (folder == nullptr) continue;
    if (Fd fd{::open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600)}) return fd;
  }
  return Fd{::memfd_create("snapshot", MFD_CLOEXEC)};
}

}  // namespace

Result<std::unique_ptr<SnapshotFile>, VmError> SnapshotFile::create(Fd base, u64 bytes) {
  Fd changes = unnamed_file();
  if (!changes || ::ftruncate(changes.get(), static_cast<off_t>((bytes + kCluster - 1) / kCluster * kCluster)) != 0)
    return Err{VmError{VmError::About::disk, VmError::Reason::no_temporary, {}, errno}};
  return std::unique_ptr<SnapshotFile>{new SnapshotFile{std::move(base), std::move(changes), bytes}};
}

SnapshotFile::SnapshotFile(Fd base, Fd changes, u64 bytes)
    : base_{std::move(base)},
      changes_{std::move(changes)},
      bytes_{bytes},
      changed_((bytes + kCluster - 1) / kCluster, false) {}

int SnapshotFile::perform(const DiskJob& job) {
  std::lock_guard guard{lock_};
  switch (job.kind) {
    case DiskJob::Kind::read:
      return read(job.data, job.offset, job.bytes);
    case DiskJob::Kind::write:
      return write(job.data, job.offset, job.bytes);
    case DiskJob::Kind::write_zeroes:
      return zero(job.offset, job.bytes);
    case DiskJob::Kind::flush:  // there is nothing to keep
    case DiskJob::Kind::discard:
      return 0;
  }
  return EINVAL;
}

// From one change of side to the next.
int SnapshotFile::read(std::vector<iovec> data, u64 offset, u64 bytes) {
  for (u64 done = 0; done < bytes;) {
    const u64 at = offset + done;
    const bool here = changed(at / kCluster);
    u64 end = (at / kCluster + 1) * kCluster;
    while (end < offset + bytes && changed(end / kCluster) == here) end += kCluster;
    const u64 n = std::min(end, offset + bytes) - at;
    if (const int error = read_vectors(here ? changes_.get() : base_.get(), part_of(data, done, n), at)) return error;
    done += n;
  }
  return 0;
}

int SnapshotFile::copy_up(u64 cluster) {
  if (changed(cluster)) return 0;
  std::array<char, kCluster> bytes{};
  const u64 at = cluster * kCluster;
  const iovec whole{bytes.data(), std::min(kCluster, bytes_ - at)};
  if (const int error = read_vectors(base_.get(), {whole}, at)) return error;
  if (const int error = write_vectors(changes_.get(), {whole}, at, 0)) return error;
  changed_[cluster] = true;
  return 0;
}

int SnapshotFile::write(std::vector<iovec> data, u64 offset, u64 bytes) {
  if (bytes == 0) return 0;
  const u64 first = offset / kCluster, last = (offset + bytes - 1) / kCluster;
  if (offset % kCluster != 0)
    if (const int error = copy_up(first)) return error;
  if ((offset + bytes) % kCluster != 0)
    if (const int error = copy_up(last)) return error;
  if (const int error = write_vectors(changes_.get(), std::move(data), offset, 0)) return error;
  std::fill(changed_.begin() + static_cast<std::ptrdiff_t>(first),
            changed_.begin() + static_cast<std::ptrdiff_t>(last) + 1, true);
  return 0;
}

int SnapshotFile::zero(u64 offset, u64 bytes) {
  static const std::array<char, 65536> zeros{};
  for (u64 done = 0; done < bytes;) {
    const u64 n = std::min<u64>(zeros.size(), bytes - done);
    if (const int error = write({{const_cast<char*>(zeros.data()), n}}, offset + done, n)) return error;
    done += n;
  }
  return 0;
}

}  // namespace trapline::monitor
