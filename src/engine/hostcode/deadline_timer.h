// Code that does not count instructions never looks at the clock: a signal tells it that the vCPU's timer is due.
#pragma once

#include "cpu/vcpu.h"

namespace trapline::engine::hostcode {

// One per vCPU, used by its thread. The signal is SIGALRM, to that thread alone.
class DeadlineTimer {
 public:
  DeadlineTimer() = default;
  ~DeadlineTimer();
  DeadlineTimer(const DeadlineTimer&) = delete;

  // The calling thread, at the first call, is the one that is told. Throws HostRefused.
  void create();
  // For cpu.timer_deadline, unless it is set to that already. A microsecond late rather than early.
  void arm(const cpu::Vcpu& cpu);
  // It has come (async-signal-safe): should that be too early, it is set again.
  void fired() { armed_ = ~u64{0}; }

 private:
  void* timer_ = nullptr;  // timer_t
  bool created_ = false;
  u64 armed_ = ~u64{0};  // the deadline it is set to
};

}  // namespace trapline::engine::hostcode
