#include "engine/patch/handover.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#include <algorithm>

#include "base/trace.h"
#include "channel/futex.h"
#include "channel/spin.h"

namespace trapline::engine::patch {

using cage::Cage;

namespace {

// Ticks that one side polls for the other: what waking it on another CPU costs, or twice that. Who polls no longer than
// that loses at most as much again. (A mean of the turns alone was no guide: one idle guest made both sleep at every
// stop.)
constexpr u64 kStopPoll = 400'000;
constexpr u32 kCagePolls = 250'000;
constexpr u64 kEarlyNs = 100'000;  // so much before the guest's timer a sleeper gets up: waking takes about as long
constexpr u64 kMoved = 20'000;     // a poll of so long looks whether the core's thread has moved

// Linux 5.16: sleeps on several words. linux/futex.h of Debian 12's kernel has it; older hosts answer ENOSYS.
bool wait_for_either(std::atomic<u32>& a, u32 a_now, std::atomic<u32>* b, u32 b_now, u64 ns) {
  futex_waitv words[2] = {};
  words[0].val = a_now, words[0].uaddr = reinterpret_cast<u64>(&a), words[0].flags = FUTEX_32;
  if (b) words[1].val = b_now, words[1].uaddr = reinterpret_cast<u64>(b), words[1].flags = FUTEX_32;
  timespec until;
  clock_gettime(CLOCK_MONOTONIC, &until);
  const u64 nanoseconds = static_cast<u64>(until.tv_nsec) + std::min<u64>(ns, 1'000'000'000);
  until.tv_sec += static_cast<time_t>(nanoseconds / 1'000'000'000);
  until.tv_nsec = static_cast<long>(nanoseconds % 1'000'000'000);
  const long result = ::syscall(SYS_futex_waitv, words, b ? 2 : 1, 0, &until, CLOCK_MONOTONIC);
  return result >= 0 || (errno != ENOSYS && errno != EPERM);
}

}  // namespace

bool Handover::wants_out() const {
  return cpu_.attention->load(std::memory_order_acquire) != 0 ||
         (cpu_.timer_deadline != ~u64{0} && cpu_.vm_tsc() >= cpu_.timer_deadline);
}

void Handover::place(Cage& cage) {
  cage.set_affinity(apart_ ? Cage::Affinity::apart : Cage::Affinity::beside, ::sched_getcpu());
}

u32 Handover::give(Cage& cage) {
  place(cage);
  return apart_ ? kCagePolls : 0;
}

void Handover::spin(Cage& cage) {
  for (u64 left = limit_.ticks(); left > 0; left -= std::min(left, kMoved)) {
    if (channel::poll_for(std::min(left, kMoved), [&] { return cage.stopped() || wants_out(); })) return;
    place(cage);  // this thread may be where the cage is
  }
}

// Until the vCPU's timer, in nanoseconds; far away where there is none.
u64 Handover::until_timer() const {
  if (cpu_.timer_deadline == ~u64{0}) return ~u64{0};
  const u64 now = cpu_.vm_tsc();
  return cpu_.timer_deadline > now ? cpu_.clock->tsc_to_ns(cpu_.timer_deadline - now) : 0;
}

void Handover::sleep(Cage& cage) {
  std::atomic<u32>* const word = cpu_.sleep_word;
  cage.sleeps().store(1);
  if (word) word->store(1);
  const u32 calls = cage.calls().load();
  if (calls == cage.turn() && !wants_out()) {
    const u64 early = apart_ ? kEarlyNs : 0, due = until_timer();
    const u64 ns = std::min<u64>(due > early ? due - early : 0, 1'000'000'000);
    constexpr u64 kOften = 200'000;  // where nobody can wake us for the other word
    if (ns != 0 && !wait_for_either(cage.calls(), calls, word, 1, ns))
      channel::futex_wait(cage.calls(), calls, std::min(ns, kOften));
  }
  cage.sleeps().store(0);
  if (word) word->store(0);
}

// Guest code runs, and is to stop.
void Handover::stop_it(Cage& cage) {
  constexpr u64 kKickAgain = 10'000'000, kPatience = 40'000'000'000;
  const u64 start = __rdtsc();
  for (u64 kicked = 0;;) {
    if (cage.stopped()) return;
    const u64 now = __rdtsc();
    if (now - kicked > kKickAgain) {
      if (cage.has_ended()) return;
      cage.kick();
      kicked = now;
    }
    if (now - start > kPatience) return cage.kill();
    // On one CPU it cannot stop while this thread polls.
    if (channel::poll_for(apart_ ? kStopPoll : 0, [&] { return cage.stopped(); })) return;
    place(cage);
    cage.sleeps().store(1);
    if (const u32 calls = cage.calls().load(); calls == cage.turn())
      channel::futex_wait(cage.calls(), calls, 1'000'000);
    cage.sleeps().store(0);
  }
}

void Handover::wait(Cage& cage) {
  if (apart_) spin(cage);
  while (!cage.stopped()) {
    if (cage.dead()) return;
    if (wants_out()) return stop_it(cage);
    sleep(cage);
    if (apart_ && until_timer() <= kEarlyNs)
      channel::poll_for(kStopPoll, [&] { return cage.stopped() || wants_out(); });
    if (!cage.stopped() && !wants_out() && cage.has_ended()) return;
  }
}

// A CPU to spare is taken for one until it shows itself not to be: then the other place is tried, and kept for a while if
// it is better.
void Handover::reconsider() {
  constexpr u32 kTry = 32, kAgain = 512, kForget = 4096;
  constexpr u64 kBad = 150'000;  // no place is good; the other one may be better
  const u64 here = cost_[apart_], there = cost_[!apart_];
  if (++turns_ < kTry) return;
  if (apart_) {
    if (turns_ >= kForget) cost_[0] = 0;
    if (here < kBad || (there != 0 && there > here)) return;
  } else if (turns_ < kAgain && here < there) {
    return;
  }
  TRACE(cages, "cages are run {}: a stop took {} ticks, {} once", apart_ ? "beside the core" : "apart", here, there);
  apart_ = !apart_;
  turns_ = 0;
}

void Handover::learn(u64 inside, u64 beside) {
  limit_.observe(inside);
  constexpr u64 kMost = 400'000;  // a thread that has lost its CPU for a while says little
  if (!spare_cpu_) return;
  u64& cost = cost_[apart_];
  cost = turns_ == 0 ? beside : cost - cost / 16 + std::min(beside, kMost) / 16;
  reconsider();
}

}  // namespace trapline::engine::patch
