// The whole state of a vCPU's registers, kept, put back and compared.
#pragma once

#include <string>
#include <vector>

#include "cpu/vcpu.h"

namespace trapline::engine::verify {

struct Registers {
  u64 gpr[16], rip, linear_mask, retired, timer_deadline;
  u32 sys_flags, need_read, need_write, need_fetch, debug_hits;
  u16 arith;
  u8 cpl;
  cpu::Mode mode;
  cpu::Activity activity;
  bool interrupt_shadow, nmi_blocked, interrupt_waiting, nmi_waiting;
  cpu::Segment seg[8];  // by isa::Seg, then LDTR and TR
  cpu::TableRegister gdtr, idtr;
  u64 control[6];  // CR0, CR2, CR3, CR4, EFER, XCR0
  u64 pdpte[4];
  cpu::DebugRegisters debug;
  cpu::Msrs msr;
  cpu::VectorState vec;
  cpu::X87State x87;
  cpu::Fault fault;
  u64 last_pause;
  u32 pauses;
  cpu::Vcpu::Counters count;

  // x87 state must be parked.
  void capture(const cpu::Vcpu& cpu);
  void restore(cpu::Vcpu& cpu) const;
  u32 rflags() const;
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
