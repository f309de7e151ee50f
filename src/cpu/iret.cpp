// IRET in every mode. Intel SDM Vol. 2A, IRET.
#include "cpu/events.h"
#include "cpu/far_transfer.h"

namespace trapline::cpu {

namespace {

// RFLAGS after an IRET at the current CPL that popped `image` with an operand of `width` bytes.
u32 returned_flags(const Vcpu& cpu, u32 image, unsigned width) {
  using namespace flag;
  u32 writable = arith | tf | df | nt;
  if (cpu.cpl <= (cpu.sys_flags & iopl) >> 12) writable |= if_;
  if (cpu.cpl == 0) writable |= iopl;
  if (width > 2) {
    writable |= rf | ac | id;
    if (cpu.cpl == 0) writable |= vif | vip;
  }
  if (!resume_flag_matters(cpu)) image &= ~rf;
  return (cpu.rflags() & ~writable & ~rf) | (image & writable);
}

// NMIs are open again from IRET on, even when it faults later (SDM Vol. 3A 6.7.1).
void unblock_nmi(Vcpu& cpu) {
  if (!cpu.nmi_blocked) [[likely]]
    return;
  cpu.nmi_blocked = false;
  if (!cpu.nmi_waiting) return;
  cpu.nmi_waiting = false;
  cpu.attention->fetch_or(attention::nmi, std::memory_order_relaxed);
}

Outcome arrive(Vcpu& cpu, u64 rip, u32 flags) {
  cpu.rip = rip;
  cpu.set_rflags_raw(flags);
  update_mode(cpu);
  if (flags & flag::if_) interrupts_may_be_open(cpu);
  return Outcome::jumped;
}

Outcome iret_real(Vcpu& cpu, const isa::Insn& insn) {
  const unsigned width = insn.operand_bytes;
  StackReader stack{cpu};
  u64 ip, cs, image;
  if (!stack.pop(ip, width) || !stack.pop(cs, width) || !stack.pop(image, width)) return Outcome::fault;
  if (ip > cs_of(cpu).limit) return cpu.raise_gp(0);
  unblock_nmi(cpu);
  const u32 kept =
      width > 2 ? cpu.rflags() & (flag::vif | flag::vip | flag::vm) : cpu.rflags() & 0xffff0000 & ~flag::rf;
  if (!resume_flag_matters(cpu)) image &= ~u64{flag::rf};
  load_real_segment(cs_of(cpu), static_cast<u16>(cs));
  cpu.gpr[isa::rsp] = stack.rsp();
  return arrive(cpu, ip, (static_cast<u32>(image) & (width > 2 ? 0x257fd5 : 0x7fd5)) | kept);
}

Outcome iret_vm86(Vcpu& cpu, const isa::Insn& insn) {
  const unsigned width = insn.operand_bytes;
  // Virtual-8086 extensions (CR4.VME) are not offered, so IOPL alone decides.
  if ((cpu.sys_flags & flag::iopl) != flag::iopl) return cpu.raise_gp(0);
  StackReader stack{cpu};
  u64 ip, cs, image;
  if (!stack.pop(ip, width) || !stack.pop(cs, width) || !stack.pop(image, width)) return Outcome::fault;
  if (ip > cs_of(cpu).limit) return cpu.raise_gp(0);
  const u32 flags = returned_flags(cpu, static_cast<u32>(image), width);  // CPL 3: IOPL, VM, VIF, VIP stay
  unblock_nmi(cpu);
  cs_of(cpu) = vm86_segment(static_cast<u16>(cs));
  cpu.gpr[isa::rsp] = stack.rsp();
  return arrive(cpu, ip, flags);
}

// NT: back to the task that the current TSS links to.
Outcome iret_task(Vcpu& cpu, const isa::Insn& insn) {
  u16 link;
  Descriptor tss;
  if (!system_read(cpu, table_address(cpu, cpu.tr.base, 0), link)) return Outcome::fault;
  const u16 error = selector_error(link);
  if (link & 4) return cpu.raise(Vector::ts, error);
  if (!fetch_descriptor(cpu, link, Vector::ts, tss)) return Outcome::fault;
  const bool busy = tss.system() && (tss.type() == system_type::tss16_busy || tss.type() == system_type::tss32_busy);
  if (!busy) return cpu.raise(Vector::ts, error);
  if (!tss.present()) return cpu.raise(Vector::np, error);
  switch (switch_task(cpu, link, tss, TaskSwitch::iret, next_rip(cpu, insn))) {
    case Switched::done:
      return Outcome::jumped;
    case Switched::trap:
      return debug_trap(cpu, dr6::bt);
    default:
      return Outcome::fault;
  }
}

Outcome to_vm86(Vcpu& cpu, StackReader& stack, u64 ip, u64 cs, u32 image) {
  u64 esp, selector[5];  // SS ES DS FS GS
  if (!stack.pop(esp, 4)) return Outcome::fault;
  for (u64& s : selector)
    if (!stack.pop(s, 4)) return Outcome::fault;
  if (ip > 0xffff) return cpu.raise_gp(0);
  constexpr Seg order[5] = {Seg::ss, Seg::es, Seg::ds, Seg::fs, Seg::gs};
  for (unsigned i = 0; i < 5; i++) cpu.segment(order[i]) = vm86_segment(static_cast<u16>(selector[i]));
  cs_of(cpu) = vm86_segment(static_cast<u16>(cs));
  const u32 flags = returned_flags(cpu, image, 4) | flag::vm;
  cpu.gpr[isa::rsp] = esp;
  cpu.cpl = 3;
  return arrive(cpu, ip, flags);
}

struct Frame {
  u64 ip = 0, cs = 0, flags = 0, sp = 0, ss = 0;
};

// Loads all of a checked frame. `stack_popped`: SS:SP are part of it.
Outcome return_to(Vcpu& cpu, const Frame& f, unsigned width, bool stack_popped, StackReader& stack, Descriptor& code) {
  const u16 selector = static_cast<u16>(f.cs);
  const u8 cpl = rpl_of(selector);
  Segment ss;
  if (stack_popped && !check_return_stack(cpu, static_cast<u16>(f.ss), cpl, code, ss)) return Outcome::fault;
  if (!check_target(cpu, code, f.ip) || !mark_accessed(cpu, code)) return Outcome::fault;
  const u32 flags = returned_flags(cpu, static_cast<u32>(f.flags), width);
  const bool outer = cpl != cpu.cpl;
  if (stack_popped) {
    cpu.gpr[isa::rsp] = merged_rsp(cpu, ss, cpu.long_mode_active() && code.long_code(), f.sp);
    ss_of(cpu) = ss;
  } else {
    cpu.gpr[isa::rsp] = stack.rsp();
  }
  load_cs(cpu, selector, code, cpl);
  if (outer) drop_inner_segments(cpu);
  return arrive(cpu, f.ip, flags);
}

Outcome iret_protected(Vcpu& cpu, unsigned width) {
  StackReader stack{cpu};
  Frame f;
  if (!stack.reaches(2 * width, width)) return Outcome::fault;  // from above, as processors do
  if (!stack.pop(f.ip, width) || !stack.pop(f.cs, width) || !stack.pop(f.flags, width)) return Outcome::fault;
  if ((f.flags & flag::vm) && width == 4 && cpu.cpl == 0 && !cpu.long_mode_active())
    return to_vm86(cpu, stack, f.ip, f.cs, static_cast<u32>(f.flags));
  Descriptor code;
  if (!check_return_code(cpu, static_cast<u16>(f.cs), code)) return Outcome::fault;
  const bool outer = rpl_of(static_cast<u16>(f.cs)) != cpu.cpl;
  if (outer && (!stack.pop(f.sp, width) || !stack.pop(f.ss, width))) return Outcome::fault;
  return return_to(cpu, f, width, outer, stack, code);
}

// 64-bit mode pops SS:RSP always. The usual frame lies in one page that the TLB knows.
Outcome iret_long(Vcpu& cpu, unsigned width) {
  StackReader stack{cpu};
  Frame f;
  static_assert(sizeof(Frame) == 40);
  const u8* host = width == 8 ? tlb_lookup(cpu, Gva{cpu.gpr[isa::rsp]}, sizeof f, cpu.need_read) : nullptr;
  if (host) [[likely]] {
    std::memcpy(&f, host, sizeof f);
  } else {
    // Processors read the flags first; AMD's then SS (measured).
    if (!stack.reaches(2 * width, width)) return Outcome::fault;
    if (cpu.vendor() == isa::Vendor::amd && !stack.reaches(4 * width, width)) return Outcome::fault;
    for (u64* item : {&f.ip, &f.cs, &f.flags, &f.sp, &f.ss})
      if (!stack.pop(*item, width)) return Outcome::fault;
  }
  Descriptor code;
  if (!check_return_code(cpu, static_cast<u16>(f.cs), code)) return Outcome::fault;
  return return_to(cpu, f, width, true, stack, code);
}

}  // namespace

namespace sem {

Outcome iret(Vcpu& cpu, const isa::Insn& insn) {
  if (cpu.mode == Mode::real) return iret_real(cpu, insn);
  if (cpu.mode == Mode::vm86) return iret_vm86(cpu, insn);
  unblock_nmi(cpu);
  if (cpu.sys_flags & flag::nt) [[unlikely]]
    return cpu.long_mode_active() ? cpu.raise_gp(0) : iret_task(cpu, insn);
  return cpu.in_long64() ? iret_long(cpu, insn.operand_bytes) : iret_protected(cpu, insn.operand_bytes);
}

}  // namespace sem
}  // namespace trapline::cpu
