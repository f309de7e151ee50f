// The whole state of a vCPU's registers, kept, put back and compared.
#pragma once

#include <string>
#include <vector>

#include "cpu/vcpu.h"

namespace trapline::engine::verify {

// The architectural state, what follows from it, and what the engines count.
struct Registers : cpu::ArchState {
  alignas(64) u64 linear_mask, timer_deadline;
  u32 need_read, need_write, need_fetch, debug_hits;
  cpu::Mode mode;
  cpu::Fault fault;
  u64 last_pause;
  u32 pauses;
  cpu::Vcpu::Counters count;

  // x87 state must be parked.
  void capture(const cpu::Vcpu& cpu);
  void restore(cpu::Vcpu& cpu) const;
};

// One register that differs.
struct Difference {
  std::string name, before, reference, translated;
};

// What the guest could tell apart, and what decides how it goes on: `reference` in its registers.
bool equal(const cpu::Vcpu& reference, const Registers& translated);
std::vector<Difference> differences(const Registers& before, const Registers& reference, const Registers& translated);

// All of them, for people; vector and x87 registers that are 0 are left out.
std::string describe(const Registers& r);

}  // namespace trapline::engine::verify
