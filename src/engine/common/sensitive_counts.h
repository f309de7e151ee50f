// The counting mode of `trapline compare`: engines count how often sensitive instructions are executed, and how. It
// costs only where it is on: the interpreter's blocks get one op more for each such instruction, translated code four
// host instructions.
#pragma once

#include "channel/sensitive_counts.h"
#include "cpu/vcpu.h"
#include "isa/table.h"

namespace trapline::engine {

using channel::SensitiveCounts;
using channel::Way;

// One for each vCPU. Set before vCPU threads start; null: off.
inline SensitiveCounts* sensitive_counts = nullptr;

// The number that belongs to `insn` executed so by this vCPU as it is now; null: it is not sensitive, or nobody counts.
// Of this vCPU's thread alone.
inline u64* sensitive_count(const cpu::Vcpu& cpu, const isa::Insn& insn, Way way) {
  if (!sensitive_counts) [[likely]]
    return nullptr;
  static_assert(static_cast<unsigned>(isa::RowId::count) <= SensitiveCounts::kRows);
  const isa::Row* row = isa::classify(insn);
  if (!row) return nullptr;
  auto& of_row = sensitive_counts[cpu.index].times[static_cast<unsigned>(row->id)];
  return &of_row[cpu.cpl == 0 ? 0 : 1][static_cast<unsigned>(way)];
}

}  // namespace trapline::engine
