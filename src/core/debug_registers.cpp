#include "core/debug_registers.h"

#include <cstring>

#include "cpu/events.h"
#include "cpu/lapic.h"
#include "cpu/mmu.h"

namespace trapline::core {

namespace {

void write_flags(cpu::Vcpu& cpu, u64 value) {
  const u32 kept = cpu.rflags() & cpu::flag::vm;  // leaving or entering virtual-8086 mode takes segments along
  cpu.set_rflags_raw((static_cast<u32>(value) & ~cpu::flag::vm) | kept);
  if (value & cpu::flag::if_) cpu::interrupts_may_be_open(cpu);
}

void write_pc(cpu::Vcpu& cpu, Gva linear) {
  const u64 rip = linear.raw - cpu.segment(cpu::Seg::cs).linear_base;
  cpu.rip = cpu.in_long64() ? rip : rip & 0xffffffff;
  cpu.interrupt_shadow = false;
  if (cpu.activity == cpu::Activity::halted) cpu.activity = cpu::Activity::running;
}

void write_base(cpu::Vcpu& cpu, cpu::Seg s, u64 base) {
  if (cpu.long_mode_active() && cpu::canonical(base)) cpu.segment(s).base = base;
}

}  // namespace

Gva linear_pc(const cpu::Vcpu& cpu) { return cpu.linear(cpu::Seg::cs, cpu.rip); }

channel::DebugRegisters read_registers(const cpu::Vcpu& cpu) {
  channel::DebugRegisters r;
  static_cast<cpu::ArchState&>(r) = cpu;
  r.pc = linear_pc(cpu);
  r.eflags = cpu.rflags();
  r.cr8 = cpu.lapic ? cpu.lapic->tpr() >> 4 & 15 : 0;
  r.mode = static_cast<u8>(cpu.mode);
  return r;
}

void write_registers(cpu::Vcpu& cpu, const channel::DebugRegisters& r) {
  constexpr unsigned kControlAndTags = 5, kSt = 32;  // of the FXSAVE64 image (SDM Vol. 1 table 10-2)
  std::memcpy(cpu.gpr, r.gpr, 16 * sizeof cpu.gpr[0]);
  if (r.pc != linear_pc(cpu)) write_pc(cpu, r.pc);
  write_flags(cpu, r.eflags);
  cpu.cr2 = r.cr2;
  for (const cpu::Seg s : {cpu::Seg::fs, cpu::Seg::gs}) write_base(cpu, s, r.seg[static_cast<u8>(s)].linear_base);
  if (cpu::canonical(r.msr.kernel_gs_base)) cpu.msr.kernel_gs_base = r.msr.kernel_gs_base;
  std::memcpy(cpu.x87.image, r.x87.image, kControlAndTags);
  std::memcpy(cpu.x87.image + kSt, r.x87.image + kSt, 8 * 16);
  cpu.vec.mxcsr = r.vec.mxcsr & 0xffff;  // reserved bits would fault when the host loads it
  for (unsigned i = 0; i < 16; i++) std::memcpy(cpu.vec.zmm[i], r.vec.zmm[i], 32);
  cpu::update_mode(cpu);
}

}  // namespace trapline::core
