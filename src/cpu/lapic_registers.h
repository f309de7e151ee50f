// Register numbers (offset / 16, which is also the x2APIC MSR index - 800H) and field masks. SDM Vol. 3A table 10-1 and
// 10-6.
#pragma once

#include "base/types.h"

namespace trapline::cpu::apic {

enum Reg : u32 {
  id = 0x02,
  version = 0x03,
  tpr = 0x08,
  apr = 0x09,
  ppr = 0x0a,
  eoi = 0x0b,
  rrd = 0x0c,
  ldr = 0x0d,
  dfr = 0x0e,
  svr = 0x0f,
  isr = 0x10,
  tmr = 0x18,
  irr = 0x20,
  esr = 0x28,
  icr_low = 0x30,
  icr_high = 0x31,
  lvt_timer = 0x32,
  lvt_thermal = 0x33,
  lvt_perf = 0x34,
  lvt_lint0 = 0x35,
  lvt_lint1 = 0x36,
  lvt_error = 0x37,
  initial_count = 0x38,
  current_count = 0x39,
  divide = 0x3e,
  self_ipi = 0x3f,
};

inline constexpr u32 kVersion = 0x00050014;  // integrated APIC, six LVT entries, no EOI-broadcast suppression
inline constexpr u32 kMasked = 1u << 16;
inline constexpr u32 kDeliveryStatus = 1u << 12, kRemoteIrr = 1u << 14;  // read-only
inline constexpr u32 kSvrEnable = 1u << 8;

enum Delivery : u32 { fixed = 0, lowest = 1, smi = 2, nmi = 4, init = 5, startup = 6, extint = 7 };
constexpr Delivery delivery_mode(u32 word) { return static_cast<Delivery>(word >> 8 & 7); }

// ESR bits (SDM 10.5.3).
inline constexpr u32 kSendIllegalVector = 1u << 5, kReceivedIllegalVector = 1u << 6, kIllegalRegister = 1u << 7;

}  // namespace trapline::cpu::apic
