// Far RET, and what it shares with IRET. Intel SDM Vol. 2B, RET.
#include "cpu/far_transfer.h"

namespace trapline::cpu {

bool check_return_code(Vcpu& cpu, u16 selector, Descriptor& code) {
  if (null_selector(selector)) return (void)cpu.raise_gp(0), false;
  if (!fetch_descriptor(cpu, selector, Vector::gp, code)) return false;
  const u8 rpl = rpl_of(selector);
  bool wrong = !code.code() || rpl < cpu.cpl;
  wrong |= code.conforming_code() ? code.dpl() > rpl : code.dpl() != rpl;
  if (cpu.long_mode_active()) wrong |= code.long_code() && code.big();
  if (wrong) return (void)cpu.raise_gp(selector_error(selector)), false;
  if (!code.present()) return (void)cpu.raise(Vector::np, selector_error(selector)), false;
  return true;
}

bool check_return_stack(Vcpu& cpu, u16 selector, u8 cpl, const Descriptor& code, Segment& out) {
  if (null_selector(selector) && cpu.long_mode_active() && code.long_code() && cpl != 3) {
    out = null_segment(selector);
    out.attr = static_cast<u16>(cpl << 5);
    return true;
  }
  return check_stack_segment(cpu, selector, cpl, Vector::gp, out);
}

// Null selectors with an RPL become plain 0, too (SDM Vol. 2B RET). The base survives, which 64-bit code sees of FS and
// GS.
void drop_inner_segments(Vcpu& cpu) {
  for (const Seg index : {Seg::es, Seg::fs, Seg::gs, Seg::ds}) {
    Segment& s = cpu.segment(index);
    const bool conforming = (s.attr & 0x1c) == 0x1c;
    const bool inner = s.usable && !conforming && s.dpl() < cpu.cpl;
    if (!inner && !null_selector(s.selector)) continue;
    const u64 base = s.base;
    s = null_segment(0);
    s.base = base;
  }
}

u64 merged_rsp(const Vcpu& cpu, const Segment& ss, bool long_code, u64 rsp) {
  if (long_code) return rsp;
  return ss.big() ? rsp & 0xffffffff : (cpu.gpr[isa::rsp] & ~u64{0xffff}) | (rsp & 0xffff);
}

namespace {

Outcome real_return(Vcpu& cpu, const isa::Insn& insn, StackReader& stack) {
  u64 ip, cs;
  if (!stack.pop(ip, insn.operand_bytes) || !stack.pop(cs, insn.operand_bytes)) return Outcome::fault;
  if (ip > cs_of(cpu).limit) return cpu.raise_gp(0);
  stack.skip(insn.imm & 0xffff);
  cpu.gpr[isa::rsp] = stack.rsp();
  load_real_cs(cpu, static_cast<u16>(cs));
  cpu.rip = ip;
  update_mode(cpu);
  return Outcome::jumped;
}

}  // namespace

namespace sem {

Outcome far_ret(Vcpu& cpu, const isa::Insn& insn) {
  StackReader stack{cpu};
  if (real_segments(cpu)) return real_return(cpu, insn, stack);
  const unsigned width = insn.operand_bytes;
  const u64 release = insn.imm & 0xffff;
  u64 ip, cs;
  Descriptor code;
  // Processors read from the upper end; AMD's the outer stack before they look at CS, too (measured).
  const bool outer_first = cpu.vendor() == isa::Vendor::amd;
  if (!stack.reaches(width, width)) return Outcome::fault;
  if (!stack.pop(ip, width) || !stack.pop(cs, width)) return Outcome::fault;
  const u16 selector = static_cast<u16>(cs);
  if (outer_first && rpl_of(selector) != cpu.cpl && !stack.reaches(release + width, width)) return Outcome::fault;
  if (!check_return_code(cpu, selector, code)) return Outcome::fault;
  stack.skip(release);
  const u8 cpl = rpl_of(selector);
  if (cpl == cpu.cpl) {
    if (!check_target(cpu, code, ip) || !mark_accessed(cpu, code)) return Outcome::fault;
    cpu.gpr[isa::rsp] = stack.rsp();
    load_cs(cpu, selector, code, cpl);
  } else {
    u64 sp, ss_selector;
    Segment ss;
    if (!stack.pop(sp, width) || !stack.pop(ss_selector, width)) return Outcome::fault;
    if (!check_return_stack(cpu, static_cast<u16>(ss_selector), cpl, code, ss)) return Outcome::fault;
    if (!check_target(cpu, code, ip) || !mark_accessed(cpu, code)) return Outcome::fault;
    const bool long_code = cpu.long_mode_active() && code.long_code();
    cpu.gpr[isa::rsp] = merged_rsp(cpu, ss, long_code, sp + release);
    load_cs(cpu, selector, code, cpl);
    ss_of(cpu) = ss;
    drop_inner_segments(cpu);
  }
  cpu.rip = ip;
  update_mode(cpu);
  return Outcome::jumped;
}

}  // namespace sem
}  // namespace trapline::cpu
