// What --stats tells of a vCPU.
#pragma once

#include "base/types.h"

namespace trapline::channel {

// Plain: read after the vCPU stopped (or torn, for the live rate).
struct Counters {
  u64 port_reads = 0, port_writes = 0, mmio_reads = 0, mmio_writes = 0, halts = 0, yields = 0;
  u64 interrupts = 0, nmis = 0, exceptions[32] = {}, page_walks = 0, tlb_flushes = 0;
  u64 blocks_decoded = 0, blocks_invalidated = 0, instructions_decoded = 0;
  u64 blocks_translated = 0, instructions_translated = 0, translating_ns = 0, host_code_bytes = 0;
  u64 hypercalls = 0;
  // Requests to the monitor, and host TSC ticks from asking to the answer.
  u64 requests = 0, request_ticks = 0;
  // Direct execution. Stops of cages by cause, host TSC ticks in guest code and beside it.
  u64 cage_calls = 0, cage_faults = 0, cage_traps = 0, cage_kicks = 0, cage_inside = 0, cage_beside = 0;
  u64 cage_promotions = 0, cage_demotions = 0;
};

}  // namespace trapline::channel
