#include "engine/common/executed_scan.h"

#include <algorithm>
#include <mutex>
#include <set>
#include <tuple>

#include "isa/table.h"

namespace trapline::engine {

namespace {

// What makes two executions the same entry; code may change, so the row belongs to it.
using Key = std::tuple<u64, u16, u8, u8>;

struct {
  std::mutex mutex;
  std::set<Key> known;
} g_seen;

}  // namespace

void log_executed(const cpu::Vcpu& cpu, Gva gva, const isa::Insn& insn) {
  const isa::Row* row = isa::classify(insn);
  if (!row) return;
  ExecutedInsn entry;
  entry.gva = gva;
  entry.row = static_cast<u16>(row->id);
  entry.length = insn.length;
  entry.bits = static_cast<u8>(static_cast<u8>(insn.code_size) * 8);
  entry.cpl = cpu.cpl;
  std::lock_guard lock{g_seen.mutex};
  if (g_seen.known.size() >= ExecutedLog::kCapacity) return;
  if (!g_seen.known.emplace(gva.raw, entry.row, entry.cpl, entry.bits).second) return;
  std::copy_n(insn.bytes.begin(), insn.length, entry.bytes);
  isa::format(insn, gva.raw, entry.text, sizeof entry.text - 1);
  const u32 at = executed_log->count.load(std::memory_order_relaxed);
  if (at < ExecutedLog::kCapacity) executed_log->insn[at] = entry;
  executed_log->count.store(at + 1, std::memory_order_release);
}

}  // namespace trapline::engine
