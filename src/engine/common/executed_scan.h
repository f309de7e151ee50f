// --scan-report: which instructions of the instruction table a guest has executed. An engine calls saw() for every
// instruction that it decodes into a block which it is about to enter; each is logged once per place and ring. The log
// is memory shared with the monitor, which treats it as hostile: see monitor/scan_report.cpp.
#pragma once

#include <atomic>
#include <span>

#include "base/types.h"
#include "cpu/vcpu.h"
#include "isa/insn.h"

namespace trapline::engine {

struct ExecutedInsn {
  u64 gva = 0;  // linear address of its first byte
  u16 row = 0;  // isa::RowId
  u8 length = 0, bits = 0, cpl = 0;
  u8 bytes[15] = {};
  char text[68] = {};  // disassembled, NUL-terminated: the monitor decodes no guest bytes
};
static_assert(sizeof(ExecutedInsn) == 96);

struct ExecutedLog {
  static constexpr u32 kCapacity = 1 << 17;
  std::atomic<u32> count;  // goes on counting when the log is full
  u32 unused[15];
  ExecutedInsn insn[kCapacity];
};

// Set before vCPU threads start; null: off.
inline ExecutedLog* executed_log = nullptr;

// Any vCPU's thread.
void log_executed(const cpu::Vcpu& cpu, u64 gva, const isa::Insn& insn);

inline void saw(const cpu::Vcpu& cpu, u64 gva, const isa::Insn& insn) {
  if (executed_log) [[unlikely]]
    log_executed(cpu, gva, insn);
}

}  // namespace trapline::engine
