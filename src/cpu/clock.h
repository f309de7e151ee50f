// Guest time. One Clock per VM; all vCPUs share it.
//
// real: the TSC is the host's plus an offset. instructions: one retired guest instruction is one tick of a 1 GHz TSC,
// and a halted VM skips forward to its next timer, so that a run depends on nothing outside it (--clock instructions).
#pragma once

#include <x86intrin.h>

#include <atomic>

#include "base/types.h"

namespace trapline::cpu {

// The local APIC timers count at the TSC's rate; a TSC over 4.29 GHz is halved, so that CPUID 15H can state the rate as
// its crystal in 32 bits of Hz. One rate for both makes that leaf exact: crystal * ratio is the TSC frequency without
// rounding.
constexpr unsigned lapic_prescale(u64 tsc_khz) { return tsc_khz > 4'294'967 ? 2 : 1; }

struct Clock {
  bool instructions = false;
  u64 tsc_khz = 1'000'000;  // frequency of the guest TSC
  u64 tsc_offset = 0;       // real: VM's TSC = host TSC + offset
  // What guests saw when that was 0. -tsc_offset where guest code reads the host's TSC itself.
  u64 guest_origin = 0;
  // instructions: ticks at the start of the running vCPU's current slice; with several vCPUs, they run in turn and only
  // the one whose turn it is writes
  std::atomic<u64> virtual_base{0};

  // The VM's TSC, before a vCPU's own TSC_ADJUST. `retired_in_slice`: instructions retired since virtual_base was
  // written.
  u64 tsc(u64 retired_in_slice) const {
    return instructions ? virtual_base.load(std::memory_order_relaxed) + retired_in_slice : __rdtsc() + tsc_offset;
  }
  u64 tsc_to_ns(u64 ticks) const { return static_cast<u64>(static_cast<u128>(ticks) * 1'000'000 / tsc_khz); }
  u64 ns_to_tsc(u64 ns) const { return static_cast<u64>(static_cast<u128>(ns) * tsc_khz / 1'000'000); }
};

}  // namespace trapline::cpu
