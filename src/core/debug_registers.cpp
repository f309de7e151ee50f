#include "core/debug_registers.h"

#include <cstring>

#include "cpu/events.h"
#include "cpu/lapic.h"
#include "cpu/mmu.h"

namespace trapline::core {

namespace {

// Offsets in the FXSAVE64 image (SDM Vol. 1 table 10-2).
constexpr unsigned kFcw = 0, kFsw = 2, kFtw = 4, kSt = 32;

const cpu::Segment& seg_of(const cpu::Vcpu& cpu, cpu::Seg s) { return cpu.seg[static_cast<u8>(s)]; }

template <class T>
T image_field(const cpu::Vcpu& cpu, unsigned offset) {
  T v;
  std::memcpy(&v, cpu.x87.image + offset, sizeof v);
  return v;
}

void write_flags(cpu::Vcpu& cpu, u64 value) {
  const u32 kept = cpu.rflags() & cpu::flag::vm;  // leaving or entering virtual-8086 mode takes segments along
  cpu.set_rflags_raw((static_cast<u32>(value) & ~cpu::flag::vm) | kept);
  if (value & cpu::flag::if_) cpu::interrupts_may_be_open(cpu);
}

void write_pc(cpu::Vcpu& cpu, u64 linear) {
  const u64 rip = linear - seg_of(cpu, cpu::Seg::cs).linear_base;
  cpu.rip = cpu.in_long64() ? rip : rip & 0xffffffff;
  cpu.interrupt_shadow = false;
  if (cpu.activity == cpu::Activity::halted) cpu.activity = cpu::Activity::running;
}

void write_base(cpu::Vcpu& cpu, cpu::Seg s, u64 base) {
  if (cpu.long_mode_active() && cpu::canonical(base)) cpu.seg[static_cast<u8>(s)].base = base;
}

}  // namespace

u64 linear_pc(const cpu::Vcpu& cpu) { return (seg_of(cpu, cpu::Seg::cs).linear_base + cpu.rip) & cpu.linear_mask; }

channel::DebugRegisters read_registers(const cpu::Vcpu& cpu) {
  channel::DebugRegisters r;
  std::memcpy(r.gpr, cpu.gpr, sizeof r.gpr);
  r.pc = linear_pc(cpu);
  r.rip = cpu.rip, r.rflags = cpu.rflags();
  r.cr0 = cpu.cr0, r.cr2 = cpu.cr2, r.cr3 = cpu.cr3, r.cr4 = cpu.cr4, r.efer = cpu.efer;
  r.cr8 = cpu.lapic ? cpu.lapic->tpr() >> 4 & 15 : 0;
  r.kernel_gs_base = cpu.msr.kernel_gs_base;
  for (unsigned i = 0; i < 6; i++) r.base[i] = cpu.seg[i].linear_base, r.selector[i] = cpu.seg[i].selector;
  r.fcw = image_field<u16>(cpu, kFcw), r.fsw = image_field<u16>(cpu, kFsw), r.ftw = image_field<u8>(cpu, kFtw);
  r.fop = cpu.x87.fop, r.fcs = cpu.x87.fcs, r.fds = cpu.x87.fds, r.fip = cpu.x87.fip, r.fdp = cpu.x87.fdp;
  std::memcpy(r.st, cpu.x87.image + kSt, sizeof r.st);
  r.mxcsr = cpu.vec.mxcsr;
  for (unsigned i = 0; i < 16; i++) std::memcpy(r.ymm[i], cpu.vec.zmm[i], sizeof r.ymm[i]);
  r.mode = static_cast<u8>(cpu.mode), r.cpl = cpu.cpl, r.activity = static_cast<u8>(cpu.activity);
  r.retired = cpu.retired;
  return r;
}

void write_registers(cpu::Vcpu& cpu, const channel::DebugRegisters& r) {
  std::memcpy(cpu.gpr, r.gpr, sizeof r.gpr);
  if (r.pc != linear_pc(cpu)) write_pc(cpu, r.pc);
  write_flags(cpu, r.rflags);
  cpu.cr2 = r.cr2;
  write_base(cpu, cpu::Seg::fs, r.base[static_cast<u8>(cpu::Seg::fs)]);
  write_base(cpu, cpu::Seg::gs, r.base[static_cast<u8>(cpu::Seg::gs)]);
  if (cpu::canonical(r.kernel_gs_base)) cpu.msr.kernel_gs_base = r.kernel_gs_base;
  std::memcpy(cpu.x87.image + kFcw, &r.fcw, 2);
  std::memcpy(cpu.x87.image + kFsw, &r.fsw, 2);
  std::memcpy(cpu.x87.image + kFtw, &r.ftw, 1);
  std::memcpy(cpu.x87.image + kSt, r.st, sizeof r.st);
  cpu.vec.mxcsr = r.mxcsr & 0xffff;  // reserved bits would fault when the host loads it
  for (unsigned i = 0; i < 16; i++) std::memcpy(cpu.vec.zmm[i], r.ymm[i], sizeof r.ymm[i]);
  cpu::update_mode(cpu);
}

}  // namespace trapline::core
