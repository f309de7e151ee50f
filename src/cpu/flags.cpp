// PUSHF, POPF, CLI, STI, STAC, CLAC. Virtual-8086 extensions (CR4.VME, PVI) are not offered, so IOPL alone decides.
// Intel SDM Vol. 2: the instructions' pages; Vol. 3A 6.8.1 (masking), 20.2 (virtual-8086 mode).
#include "cpu/events.h"
#include "cpu/semantics.h"

namespace trapline::cpu::sem {

namespace {

unsigned iopl(const Vcpu& cpu) { return cpu.sys_flags >> 12 & 3; }

// In 64-bit mode there is no 32-bit form.
unsigned flags_width(const Vcpu& cpu, const isa::Insn& insn) {
  return cpu.in_long64() && insn.operand_bytes != 2 ? 8 : insn.operand_bytes;
}

bool may_change_if(const Vcpu& cpu) {
  if (cpu.mode == Mode::real) return true;
  return cpu.mode == Mode::vm86 ? iopl(cpu) == 3 : cpu.cpl <= iopl(cpu);
}

Outcome set_ac(Vcpu& cpu, bool ac) {
  if (cpu.cpl != 0 || (cpu.cpuid && !cpu.cpuid->has(Feature::smap))) return cpu.raise_ud();
  cpu.sys_flags = ac ? cpu.sys_flags | flag::ac : cpu.sys_flags & ~flag::ac;
  update_access(cpu);
  return Outcome::next;
}

}  // namespace

Outcome pushf(Vcpu& cpu, const isa::Insn& insn) {
  if (cpu.mode == Mode::vm86 && iopl(cpu) != 3) return cpu.raise_gp();
  const u32 image = cpu.rflags() & ~(flag::vm | flag::rf);
  return push(cpu, image, flags_width(cpu, insn)) ? Outcome::next : Outcome::fault;
}

Outcome popf(Vcpu& cpu, const isa::Insn& insn) {
  if (cpu.mode == Mode::vm86 && iopl(cpu) != 3) return cpu.raise_gp();
  const unsigned width = flags_width(cpu, insn);
  u64 popped;
  if (!pop(cpu, &popped, width)) return Outcome::fault;
  u32 open = flag::arith | flag::tf | flag::df | flag::nt;
  if (width > 2) open |= flag::ac | flag::id;
  if (cpu.cpl == 0) open |= flag::iopl;
  if (may_change_if(cpu)) open |= flag::if_;
  const u32 before = cpu.rflags();
  u32 after = (before & ~open) | (static_cast<u32>(popped) & open);
  if (width > 2) after &= ~flag::rf;
  cpu.set_rflags_raw(after);
  if ((before ^ after) & flag::ac) update_access(cpu);
  if (after & ~before & flag::if_) interrupts_may_be_open(cpu);
  return Outcome::next;
}

Outcome cli(Vcpu& cpu, const isa::Insn&) {
  if (!may_change_if(cpu)) return cpu.raise_gp();
  cpu.sys_flags &= ~flag::if_;
  return Outcome::next;
}

Outcome sti(Vcpu& cpu, const isa::Insn&) {
  if (!may_change_if(cpu)) return cpu.raise_gp();
  if (cpu.sys_flags & flag::if_) return Outcome::next;
  cpu.sys_flags |= flag::if_;
  cpu.interrupt_shadow = true;
  interrupts_may_be_open(cpu);
  return Outcome::next;
}

Outcome stac(Vcpu& cpu, const isa::Insn&) { return set_ac(cpu, true); }
Outcome clac(Vcpu& cpu, const isa::Insn&) { return set_ac(cpu, false); }

}  // namespace trapline::cpu::sem
