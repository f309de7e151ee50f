// --scan-report: which instructions of the instruction table a guest has executed. An engine calls saw() for every
// instruction that it decodes into a block which it is about to enter; each is logged once per place and ring. The log
// is memory shared with the monitor, which treats it as hostile: see monitor/scan_report.cpp.
#pragma once

#include "base/types.h"
#include "channel/executed_log.h"
#include "cpu/vcpu.h"
#include "isa/insn.h"

namespace trapline::engine {

using channel::ExecutedInsn;
using channel::ExecutedLog;

// Set before vCPU threads start; null: off.
inline ExecutedLog* executed_log = nullptr;

// Any vCPU's thread.
void log_executed(const cpu::Vcpu& cpu, Gva gva, const isa::Insn& insn);

inline void saw(const cpu::Vcpu& cpu, Gva gva, const isa::Insn& insn) {
  if (executed_log) [[unlikely]]
    log_executed(cpu, gva, insn);
}

}  // namespace trapline::engine
