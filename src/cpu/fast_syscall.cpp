// SYSCALL, SYSRET, SYSENTER, SYSEXIT: flat segments without descriptor reads. Intel SDM Vol. 2B. Where the CPUID policy
// shows an AMD processor, APM Vol. 3: SYSCALL outside 64-bit mode exists, SYSENTER in IA-32e mode does not.
#include "cpu/events.h"
#include "cpu/far_transfer.h"
#include "cpu/hypervisor.h"

namespace trapline::cpu {

namespace {

bool intel(const Vcpu& cpu) { return cpu.vendor() == isa::Vendor::intel; }

Segment flat(u16 selector, u16 attr) {
  Segment s;
  s.selector = selector;
  s.attr = attr;
  s.limit = 0xffffffff;
  s.usable = true;
  return s;
}

Segment flat_code(u16 selector, u8 cpl, bool is_long) {
  return flat(selector, static_cast<u16>((is_long ? 0xa09b : 0xc09b) | cpl << 5));
}
Segment flat_stack(u16 selector, u8 cpl) { return flat(selector, static_cast<u16>(0xc093 | cpl << 5)); }

// CS and SS at once. SYSCALL and friends mask selectors themselves; SYSRET and SYSEXIT force RPL 3.
void load_flat(Vcpu& cpu, u16 cs, u16 ss, u8 cpl, bool is_long) {
  cs_of(cpu) = flat_code(cs, cpl, is_long);
  ss_of(cpu) = flat_stack(ss, cpl);
  cpu.cpl = cpl;
}

// Between rings of 64-bit mode: of what follows from the mode (update_mode()) all but the right of access stays.
Outcome arrive64(Vcpu& cpu, u16 cs, u16 ss, u8 cpl, u64 rip) {
  const auto set = [cpl](Segment& s, u16 selector, u16 attr) {
    s.selector = selector;
    s.attr = static_cast<u16>(attr | cpl << 5);
    s.limit = 0xffffffff;
    s.base = s.linear_base = 0;
    s.usable = s.flat_read = s.flat_write = true;
  };
  set(cs_of(cpu), cs, 0xa09b);
  set(ss_of(cpu), ss, 0xc093);
  cpu.cpl = cpl;
  cpu.rip = rip;
  update_access(cpu);
  return Outcome::jumped;
}

u16 star(const Vcpu& cpu, unsigned shift) { return static_cast<u16>(cpu.msr.star >> shift); }

Outcome arrive(Vcpu& cpu, u64 rip) {
  cpu.rip = rip;
  update_mode(cpu);
  return Outcome::jumped;
}

// AMD, legacy mode: no R11, no mask; IF, VM and RF are cleared.
Outcome syscall_legacy(Vcpu& cpu, u64 next) {
  cpu.gpr[isa::rcx] = next & 0xffffffff;
  cpu.sys_flags &= ~(flag::vm | flag::if_ | flag::rf);
  load_flat(cpu, star(cpu, 32) & 0xfffc, static_cast<u16>((star(cpu, 32) & 0xfffc) + 8), 0, false);
  return arrive(cpu, cpu.msr.star & 0xffffffff);
}

Outcome sysret_legacy(Vcpu& cpu) {
  cpu.sys_flags |= flag::if_;
  load_flat(cpu, star(cpu, 48) | 3, static_cast<u16>(star(cpu, 48) + 8) | 3, 3, false);
  const Outcome outcome = arrive(cpu, cpu.gpr[isa::rcx] & 0xffffffff);
  interrupts_may_be_open(cpu);
  return outcome;
}

}  // namespace

namespace sem {

Outcome syscall(Vcpu& cpu, const isa::Insn& insn) {
  if (!(cpu.efer & efer::sce)) return cpu.raise_ud();
  if (!cpu.in_long64() && (intel(cpu) || !cpu.protected_mode())) return cpu.raise_ud();
  const u64 next = next_rip(cpu, insn);
  if (cpu.hypervisor) return cpu.hypervisor->syscall(cpu, next);
  if (!cpu.long_mode_active()) return syscall_legacy(cpu, next);
  cpu.gpr[isa::rcx] = next;
  const u32 flags = cpu.rflags() & ~flag::rf;
  cpu.gpr[isa::r11] = flags;
  const u64 target = cpu.in_long64() ? cpu.msr.lstar : cpu.msr.cstar;
  cpu.set_rflags_raw(flags & ~static_cast<u32>(cpu.msr.fmask));
  const u16 cs = star(cpu, 32) & 0xfffc, ss = static_cast<u16>(star(cpu, 32) + 8) & (intel(cpu) ? 0xffff : 0xfffc);
  if (cpu.in_long64()) return arrive64(cpu, cs, ss, 0, target);
  load_flat(cpu, cs, ss, 0, true);
  return arrive(cpu, target);
}

Outcome sysret(Vcpu& cpu, const isa::Insn& insn) {
  if (!(cpu.efer & efer::sce)) return cpu.raise_ud();
  if (!cpu.in_long64() && (intel(cpu) || !cpu.protected_mode() || cpu.mode == Mode::vm86)) return cpu.raise_ud();
  if (cpu.cpl != 0) return cpu.raise_gp(0);
  if (!cpu.long_mode_active()) return sysret_legacy(cpu);
  const bool to_long = insn.operand_bytes == 8 && cpu.in_long64();
  const u64 target = to_long ? cpu.gpr[isa::rcx] : cpu.gpr[isa::rcx] & 0xffffffff;
  // Intel checks here, still in ring 0; on AMD the fetch of the next instruction faults, in ring 3.
  if (to_long && intel(cpu) && !canonical(target)) return cpu.raise_gp(0);
  const u32 image =
      cpu.in_long64() ? static_cast<u32>(cpu.gpr[isa::r11]) & 0x3c7fd7 : (cpu.rflags() & ~flag::rf) | flag::if_;
  const bool begins_stepping = (image & ~cpu.sys_flags & flag::tf) != 0;
  cpu.set_rflags_raw(image & ~flag::vm);
  const u16 base = star(cpu, 48);
  const u16 cs = static_cast<u16>(base + (to_long ? 16 : 0)) | 3, ss = static_cast<u16>(base + 8) | 3;
  if (!to_long) load_flat(cpu, cs, ss, 3, false);
  const Outcome outcome = to_long ? arrive64(cpu, cs, ss, 3, target) : arrive(cpu, target);
  if (image & flag::if_) interrupts_may_be_open(cpu);
  // Unlike IRET, SYSRET that sets TF traps at once: as if the SYSCALL had been stepped.
  return begins_stepping ? debug_trap(cpu, dr6::bs) : outcome;
}

Outcome sysenter(Vcpu& cpu, const isa::Insn&) {
  const bool is_long = cpu.long_mode_active();
  if (is_long && !intel(cpu)) return cpu.raise_ud();
  const u16 cs = static_cast<u16>(cpu.msr.sysenter_cs) & 0xfffc;
  if (!cpu.protected_mode() || cs == 0) return cpu.raise_gp(0);
  cpu.sys_flags &= ~(flag::vm | flag::if_ | flag::rf);
  const u64 mask = is_long ? ~u64{0} : 0xffffffff;
  cpu.gpr[isa::rsp] = cpu.msr.sysenter_esp & mask;
  load_flat(cpu, cs, static_cast<u16>(cs + 8), 0, is_long);
  return arrive(cpu, cpu.msr.sysenter_eip & mask);
}

Outcome sysexit(Vcpu& cpu, const isa::Insn& insn) {
  // APM Vol. 3 SYSEXIT lists #UD in long mode and #GP in outer rings without an order: processors look at CPL first.
  if (cpu.long_mode_active() && !intel(cpu) && cpu.cpl == 0) return cpu.raise_ud();
  const u16 cs = static_cast<u16>(cpu.msr.sysenter_cs) & 0xfffc;
  if (!cpu.protected_mode() || cs == 0 || cpu.cpl != 0) return cpu.raise_gp(0);
  const bool to_long = insn.operand_bytes == 8 && cpu.in_long64();
  u64 sp = cpu.gpr[isa::rcx], ip = cpu.gpr[isa::rdx];
  if (!to_long) {
    sp &= 0xffffffff;
    ip &= 0xffffffff;
  } else if (!canonical(sp) || !canonical(ip)) {
    return cpu.raise_gp(0);
  }
  cpu.gpr[isa::rsp] = sp;
  const u16 first = static_cast<u16>(cs + (to_long ? 32 : 16)) | 3;
  load_flat(cpu, first, static_cast<u16>(first + 8), 3, to_long);
  return arrive(cpu, ip);
}

}  // namespace sem
}  // namespace trapline::cpu
