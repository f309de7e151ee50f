#include "engine/hostcode/deadline_timer.h"

#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>

#include "base/host_refused.h"
#include "base/invariant.h"

namespace trapline::engine::hostcode {

DeadlineTimer::~DeadlineTimer() {
  if (created_) timer_delete(timer_);
}

void DeadlineTimer::create() {
  if (created_) return;
  sigevent event = {};
  event.sigev_notify = SIGEV_THREAD_ID;
  event.sigev_signo = SIGALRM;
  event._sigev_un._tid = static_cast<pid_t>(syscall(SYS_gettid));
  if (timer_create(CLOCK_MONOTONIC, &event, &timer_) != 0)
    throw HostRefused{"no timer for a vCPU: raise the limit of pending signals (ulimit -i)"};
  created_ = true;
}

void DeadlineTimer::arm(const cpu::Vcpu& cpu) {
  if (cpu.timer_deadline == armed_ || cpu.timer_deadline == ~u64{0}) return;
  const u64 now = cpu.vm_tsc();
  const u64 ns = cpu.timer_deadline > now ? cpu.clock->tsc_to_ns(cpu.timer_deadline - now) + 1000 : 1000;
  itimerspec spec = {};
  spec.it_value.tv_sec = static_cast<time_t>(std::min<u64>(ns / 1'000'000'000, 3600));
  spec.it_value.tv_nsec = static_cast<long>(ns % 1'000'000'000);
  armed_ = cpu.timer_deadline;
  INVARIANT(timer_settime(timer_, 0, &spec, nullptr) == 0, "timer_settime of {} ns failed", ns);
}

}  // namespace trapline::engine::hostcode
