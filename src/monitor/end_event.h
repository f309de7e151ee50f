// Why a VM ends or starts over. The first reason counts, but a reset gives way to the others: it must not swallow a
// signal or a time-out. To core_gone it does not: a reset ends the core, which may be noticed first. Posted by any
// thread, awaited by the main one through a descriptor.
#pragma once

#include <sys/eventfd.h>
#include <unistd.h>

#include <mutex>
#include <optional>

#include "base/types.h"

namespace trapline::monitor {

enum class End : u8 { power_off, reset, debug_exit, quit, console_lost, timeout, signal, core_gone };

class EndEvent {
 public:
  struct Reason {
    End end;
    u32 value;  // debug_exit: what was written; signal: its number
  };

  EndEvent() : fd_{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)} {}
  ~EndEvent() { ::close(fd_); }
  EndEvent(const EndEvent&) = delete;

  int fd() const { return fd_; }

  bool post(End end, u32 value = 0) {
    {
      std::lock_guard lock{mutex_};
      const bool gives_way = reason_ && reason_->end == End::reset && end != End::reset && end != End::core_gone;
      if (reason_ && !gives_way) return false;
      reason_ = Reason{end, value};
    }
    const u64 one = 1;
    return ::write(fd_, &one, sizeof one) == sizeof one;
  }
  std::optional<Reason> get() {
    std::lock_guard lock{mutex_};
    return reason_;
  }
  void clear() {  // the VM starts over
    std::lock_guard lock{mutex_};
    reason_.reset();
    u64 count;
    [[maybe_unused]] const ssize_t n = ::read(fd_, &count, sizeof count);
  }

 private:
  int fd_;
  std::mutex mutex_;
  std::optional<Reason> reason_;
};

}  // namespace trapline::monitor
