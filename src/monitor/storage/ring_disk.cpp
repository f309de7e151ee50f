#include <liburing.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <thread>

#include "monitor/storage/file_disk.h"

namespace trapline::monitor {

namespace {

constexpr u64 kLongCopy = 256 * KiB;  // more is not for the worker

using devices::virtio::DiskJob;

constexpr unsigned kEntries = 256;

class RingDisk final : public FileDisk {
 public:
  RingDisk(OpenDisk disk, io_uring ring, Fd stop) : FileDisk{std::move(disk)}, ring_{ring}, stop_{std::move(stop)} {}
  ~RingDisk() override { ::io_uring_queue_exit(&ring_); }

  void submit(std::unique_ptr<DiskJob> job) override;
  void go() override;
  std::vector<std::function<void()>> threads() override {
    stopping_ = false;
    u64 count = 0;
    [[maybe_unused]] const ssize_t n = ::read(stop_.get(), &count, sizeof count);  // that of the life before
    return {[this] { reap(); }};
  }
  void stop() override {
    stopping_ = true;
    const u64 one = 1;
    [[maybe_unused]] const ssize_t n = ::write(stop_.get(), &one, sizeof one);
  }
  void settle() override;

 private:
  io_uring_sqe* entry();
  bool at_once(DiskJob& job);
  bool write_at_once(DiskJob& job);
  void prepare(io_uring_sqe* sqe, DiskJob& job) const;
  void completed(io_uring_cqe* cqe);
  void reap();
  unsigned take_completions();

  io_uring ring_;
  Fd stop_;  // an eventfd
  std::atomic<u64> in_flight_{0};
  std::atomic<bool> stopping_{false};
  bool nowait_writes_ = true;  // until the file system says no; the worker's
};

// What the page cache can do without waiting needs no other thread.
bool RingDisk::at_once(DiskJob& job) {
  if (job.bytes > kLongCopy || job.data.empty()) return false;
  if (job.kind == DiskJob::Kind::write) return !job.through && write_at_once(job);
  return ::preadv2(disk_.image->direct_fd(), job.data.data(), static_cast<int>(job.data.size()),
                   static_cast<off_t>(job.offset), RWF_NOWAIT) == static_cast<ssize_t>(job.bytes);
}

// Many file systems do not offer RWF_NOWAIT for buffered writes (ext4, tmpfs), and io_uring would hand each one to a
// thread of the kernel, which takes several times as long as the copy. Whole pages need nothing read first: such a write
// waits only where the kernel slows down who makes pages dirty too fast, as it would that thread.
bool RingDisk::write_at_once(DiskJob& job) {
  const auto write = [&](int flags) {
    return ::pwritev2(disk_.image->direct_fd(), job.data.data(), static_cast<int>(job.data.size()),
                      static_cast<off_t>(job.offset), flags);
  };
  const auto bytes = static_cast<ssize_t>(job.bytes);
  if (nowait_writes_) {
    const ssize_t n = write(RWF_NOWAIT);
    if (n == bytes) return true;
    if (n >= 0 || errno != EOPNOTSUPP) return false;
    nowait_writes_ = false;
  }
  return job.offset % kPageSize == 0 && job.bytes % kPageSize == 0 && write(0) == bytes;
}

void RingDisk::submit(std::unique_ptr<DiskJob> job) {
  if (at_once(*job)) return finish(std::move(job), 0);  // all of it, or the ring does all of it
  io_uring_sqe* sqe = entry();
  prepare(sqe, *job);
  // Long copies out of the page cache, beside each other and the worker. One alone is done sooner at once, and writes to
  // one file the kernel does one after another.
  if (job->kind == DiskJob::Kind::read && job->bytes > kLongCopy && in_flight_ != 0) sqe->flags |= IOSQE_ASYNC;
  ::io_uring_sqe_set_data(sqe, job.release());
  in_flight_++;
}

// The kernel may be short of memory for a moment, or of room for completions, which the other thread makes.
void RingDisk::go() {
  while (::io_uring_sq_ready(&ring_) != 0)
    if (::io_uring_submit(&ring_) <= 0) std::this_thread::yield();
}

// A full queue is given to the kernel first, which takes all of it.
io_uring_sqe* RingDisk::entry() {
  for (;;) {
    if (io_uring_sqe* sqe = ::io_uring_get_sqe(&ring_)) return sqe;
    go();
  }
}

void RingDisk::prepare(io_uring_sqe* sqe, DiskJob& job) const {
  const int fd = disk_.image->direct_fd();
  const unsigned count = static_cast<unsigned>(job.data.size());
  switch (job.kind) {
    case DiskJob::Kind::read:
      return ::io_uring_prep_readv(sqe, fd, job.data.data(), count, job.offset);
    case DiskJob::Kind::write:
      ::io_uring_prep_writev(sqe, fd, job.data.data(), count, job.offset);
      sqe->rw_flags = job.through ? RWF_DSYNC : 0;
      return;
    case DiskJob::Kind::flush:
      return ::io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
    case DiskJob::Kind::discard:
    case DiskJob::Kind::write_zeroes:  // with its fallbacks: by the thread that takes this from the ring
      return ::io_uring_prep_nop(sqe);
  }
}

// What the kernel has done in part, or refuses in this form, is done over by waiting for it.
void RingDisk::completed(io_uring_cqe* cqe) {
  std::unique_ptr<DiskJob> job{static_cast<DiskJob*>(::io_uring_cqe_get_data(cqe))};
  const int result = cqe->res;
  ::io_uring_cqe_seen(&ring_, cqe);
  const bool moves = job->kind == DiskJob::Kind::read || job->kind == DiskJob::Kind::write;
  const bool ranges = job->kind == DiskJob::Kind::discard || job->kind == DiskJob::Kind::write_zeroes;
  const bool in_part = moves && result >= 0 && static_cast<u64>(result) < job->bytes;
  int error = result < 0 ? -result : 0;
  if (ranges || in_part || error == EAGAIN || error == EINTR || error == EINVAL || error == EOPNOTSUPP)
    error = disk_.image->perform(*job);
  finish(std::move(job), error);
  in_flight_--;
}

unsigned RingDisk::take_completions() {
  unsigned count = 0;
  for (io_uring_cqe* cqe = nullptr; ::io_uring_peek_cqe(&ring_, &cqe) == 0 && cqe != nullptr; count++) completed(cqe);
  if (count != 0) listener_->some_done();
  return count;
}

void RingDisk::reap() {
  while (!stopping_ || in_flight_ != 0) {
    pollfd ready[] = {{ring_.ring_fd, POLLIN, 0}, {stop_.get(), POLLIN, 0}};
    ::poll(ready, stopping_ ? 1 : 2, -1);
    take_completions();
  }
}

void RingDisk::settle() {
  go();
  while (in_flight_ != 0) {
    io_uring_cqe* cqe = nullptr;
    if (::io_uring_wait_cqe(&ring_, &cqe) == 0) take_completions();
  }
}

// Before the ring may be used: these operations on any descriptor, here or on threads of the kernel, and nothing else,
// for ever.
bool restrict_ring(io_uring& ring) {
  constexpr std::array kOperations{IORING_OP_NOP, IORING_OP_READV, IORING_OP_WRITEV, IORING_OP_FSYNC};
  std::array<io_uring_restriction, kOperations.size() + 1> allowed{};
  allowed.back().opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED;
  allowed.back().sqe_flags = IOSQE_ASYNC;
  for (std::size_t i = 0; i < kOperations.size(); i++) {
    allowed[i].opcode = IORING_RESTRICTION_SQE_OP;
    allowed[i].sqe_op = static_cast<u8>(kOperations[i]);
  }
  // By the system call: liburing 2.3 declares functions for these and does not export them.
  const auto tell = [&ring](unsigned what, const void* argument, unsigned count) {
    return ::syscall(SYS_io_uring_register, ring.ring_fd, what, argument, count) == 0;
  };
  return tell(IORING_REGISTER_RESTRICTIONS, allowed.data(), allowed.size()) &&
         tell(IORING_REGISTER_ENABLE_RINGS, nullptr, 0);
}

}  // namespace

std::unique_ptr<FileDisk> make_ring_disk(OpenDisk& disk) {
  if (disk.image->direct_fd() < 0) return nullptr;
  Fd stop{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
  if (!stop) return nullptr;
  io_uring ring{};
  io_uring_params params{};
  params.flags = IORING_SETUP_R_DISABLED;
  if (::io_uring_queue_init_params(kEntries, &ring, &params) != 0) return nullptr;
  if (!restrict_ring(ring)) {
    ::io_uring_queue_exit(&ring);
    return nullptr;
  }
  return std::make_unique<RingDisk>(std::move(disk), ring, std::move(stop));
}

}  // namespace trapline::monitor
