// Where one vCPU's control went last: the blocks that an engine began, kept for crash reports. Two stores per block.
//
// The slot of an entry follows from the instructions retired before it, so the entries of the last kEntries
// instructions are never overwritten by later ones, need no counter of their own, and tell by their difference how much
// of each block was executed, to the instruction, however it was left. A block that retires nothing (its first
// instruction faults) gives its slot to the next.
#pragma once

#include <array>

#include "base/types.h"
#include "isa/insn.h"

namespace trapline::cpu {

struct Trail {
  static constexpr u64 kEntries = 64, kRegimes = 16;

  struct Entry {
    u64 retired = ~u64{0};  // before the block; ~0: none
    u64 rip = 0;            // of its first instruction: an offset in CS
  };
  // How bytes at RIP were to be read from `retired` on: changes are rare and the engine's run loop sees all of them.
  struct Regime {
    u64 retired = 0, base = 0;
    isa::CodeSize size = isa::CodeSize::bits16;
  };

  std::array<Entry, kEntries> entries{};
  std::array<Regime, kRegimes> regimes{};  // the newest is regimes[newest % kRegimes]
  u32 newest = 0;

  // An engine begins a block at `rip`. Generated code may do the same itself.
  void enter(u64 retired, u64 rip) { entries[retired % kEntries] = {retired, rip}; }
  // Before the first block of another code size or CS base.
  void see(u64 retired, u64 base, isa::CodeSize size) {
    const Regime& now = regimes[newest % kRegimes];
    if (now.base == base && now.size == size) [[likely]]
      return;
    regimes[++newest % kRegimes] = {retired, base, size};
  }
};

}  // namespace trapline::cpu
