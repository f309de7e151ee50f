#include <sys/syscall.h>

#include "monitor/storage/file_disk.h"

namespace trapline::monitor {

namespace {

using devices::virtio::DiskJob;

class InlineDisk final : public FileDisk {
 public:
  using FileDisk::FileDisk;
  void submit(std::unique_ptr<DiskJob> job) override {
    const int error = disk_.image->perform(*job);
    finish(std::move(job), error);
  }
  void go() override {}
  void settle() override {}
  explicit InlineDisk(OpenDisk disk) : FileDisk{std::move(disk)} {}
};

class PoolDisk final : public FileDisk {
 public:
  explicit PoolDisk(OpenDisk disk) : FileDisk{std::move(disk)} {}

  void submit(std::unique_ptr<DiskJob> job) override {
    {
      std::lock_guard guard{lock_};
      waiting_.push_back(std::move(job));
    }
    more_.notify_one();
  }
  void go() override {}

  std::vector<std::function<void()>> threads() override {
    constexpr unsigned kThreads = 4;
    stopping_ = false;
    return std::vector<std::function<void()>>(kThreads, [this] { work(true); });
  }
  void stop() override {
    {
      std::lock_guard guard{lock_};
      stopping_ = true;
    }
    more_.notify_all();
  }
  void settle() override { work(false); }

 private:
  // Until there is nothing to do; `waits`: and stop() was called.
  void work(bool waits) {
    std::unique_lock guard{lock_};
    for (;;) {
      if (waits) more_.wait(guard, [this] { return stopping_ || !waiting_.empty(); });
      if (waiting_.empty()) return;
      std::unique_ptr<DiskJob> job = std::move(waiting_.front());
      waiting_.pop_front();
      guard.unlock();
      const int error = disk_.image->perform(*job);
      finish(std::move(job), error);
      listener_->some_done();
      guard.lock();
    }
  }

  std::mutex lock_;
  std::condition_variable more_;
  std::deque<std::unique_ptr<DiskJob>> waiting_;
  bool stopping_ = false;
};

}  // namespace

std::vector<int> FileDisk::calls() const {
  return {SYS_preadv, SYS_preadv2, SYS_pwritev2, SYS_pwritev, SYS_fdatasync, SYS_fallocate, SYS_io_uring_enter};
}

std::unique_ptr<FileDisk> make_inline_disk(OpenDisk disk) { return std::make_unique<InlineDisk>(std::move(disk)); }
std::unique_ptr<FileDisk> make_pool_disk(OpenDisk disk) { return std::make_unique<PoolDisk>(std::move(disk)); }

std::unique_ptr<FileDisk> make_file_disk(OpenDisk disk, DiskMode mode, FileDisk::Complain complain) {
  if (disk.server) return make_nbd_disk(std::move(disk), mode, std::move(complain));
  if (mode == DiskMode::at_once) return make_inline_disk(std::move(disk));
  if (auto ring = make_ring_disk(disk)) return ring;
  return make_pool_disk(std::move(disk));
}

}  // namespace trapline::monitor
