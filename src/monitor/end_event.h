// Why a VM ends or starts over. The first reason counts, but a reset gives way to the others: it must not swallow a
// signal or a time-out. To core_gone it does not: a reset ends the core, which may be noticed first. Posted by any
// thread, awaited through a descriptor.
#pragma once

#include <mutex>
#include <optional>
#include <string>

#include "base/types.h"
#include "monitor/event.h"

namespace trapline::monitor {

enum class End : u8 { power_off, reset, debug_exit, quit, console_lost, timeout, signal, core_gone, failed, command };

class EndEvent {
 public:
  struct Reason {
    End end;
    u32 value;         // debug_exit: what was written; signal: its number; failed, command: the exit code
    std::string text;  // failed: one line for the user
  };

  int fd() const { return event_.fd(); }

  bool post(End end, u32 value = 0, std::string text = {}) {
    {
      std::lock_guard lock{mutex_};
      const bool gives_way = reason_ && reason_->end == End::reset && end != End::reset && end != End::core_gone;
      if (reason_ && !gives_way) return false;
      reason_ = Reason{end, value, std::move(text)};
    }
    event_.set();
    return true;
  }
  std::optional<Reason> get() const {
    std::lock_guard lock{mutex_};
    return reason_;
  }
  // True: a reset was the reason, and is forgotten: the VM may start over. In one step, so that a reason that comes
  // meanwhile is not forgotten with it.
  bool take_reset() {
    std::lock_guard lock{mutex_};
    if (!reason_ || reason_->end != End::reset) return false;
    reason_.reset();
    event_.clear();
    return true;
  }

 private:
  mutable std::mutex mutex_;
  std::optional<Reason> reason_;
  Event event_;
};

}  // namespace trapline::monitor
