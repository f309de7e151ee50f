// How core and cage wait for each other, and on which host CPUs. docs/cages.md, "Waiting".
//
// Apart, on two CPUs, both poll: a microsecond or two, and a CPU is busy waiting. Beside each other, on one CPU, they
// sleep: two changes of address space, 10 to 100 us. Which is cheaper is measured while the VM runs: a CPU to spare may
// turn out to be a neighbour's. Thread: its vCPU's.
#pragma once

#include "cage/cage.h"
#include "cpu/vcpu.h"
#include "engine/patch/poll_limit.h"

namespace trapline::engine::patch {

class Handover {
 public:
  // spare_cpu: the host has more CPUs than the VM has vCPUs.
  Handover(cpu::Vcpu& cpu, bool spare_cpu) : cpu_{cpu}, spare_cpu_{spare_cpu}, apart_{spare_cpu} {}

  // The vCPU is needed elsewhere: an interrupt, the timer, the monitor.
  bool wants_out() const;
  // The cage is about to be given the turn. How long the stub is to poll, in ticks.
  u32 give(cage::Cage& cage);
  // It has been given. Comes back when the cage has stopped (by itself, or kicked), or has ended.
  void wait(cage::Cage& cage);
  // A turn has ended: the ticks since the one before that were the guest's, and those that were not.
  void learn(u64 inside, u64 beside);
  bool apart() const { return apart_; }

 private:
  void spin(cage::Cage& cage);
  u64 until_timer() const;
  void sleep(cage::Cage& cage);
  void stop_it(cage::Cage& cage);
  void place(cage::Cage& cage);
  void reconsider();

  cpu::Vcpu& cpu_;
  bool spare_cpu_;
  bool apart_;
  PollLimit limit_{400'000, 4'000'000};
  u64 cost_[2] = {};  // of a stop, in ticks: beside, apart; 0: not known
  u32 turns_ = 0;     // since the last change of place
};

}  // namespace trapline::engine::patch
