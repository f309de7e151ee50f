// Far JMP and CALL: to code segments, through call gates and task gates, to TSSs.
#include "cpu/events.h"
#include "cpu/far_transfer.h"

namespace trapline::cpu {

bool load_far_operand(Vcpu& cpu, const isa::Insn& insn, FarPointer& out) {
  using Kind = isa::Operand::Kind;
  if (insn.op[0].kind == Kind::far_ptr || insn.op[1].kind == Kind::far_ptr) {
    out = {static_cast<u16>(insn.imm2), insn.operand_bytes == 2 ? insn.imm & 0xffff : insn.imm & 0xffffffff};
    return true;
  }
  const u64 address = effective_address(cpu, insn.mem, next_rip(cpu, insn));
  const Seg seg = insn.mem.seg;
  // As wide as the decoder says and not as the operand: with REX.W AMD's pointers still have 32 bits of offset.
  const unsigned width = insn.mem.bytes - 2u;
  if (width == 2) {
    u16 offset;
    if (!read(cpu, seg, address, offset)) return false;
    out.offset = offset;
  } else if (width == 4) {
    u32 offset;
    if (!read(cpu, seg, address, offset)) return false;
    out.offset = offset;
  } else if (!read(cpu, seg, address, out.offset)) {
    return false;
  }
  return read(cpu, seg, part_address(insn.mem, address, width), out.selector);
}

namespace {

bool fail(Vcpu& cpu, Vector v, u16 selector) { return (void)cpu.raise(v, selector_error(selector)), false; }

Outcome arrive(Vcpu& cpu, u16 selector, const Descriptor& code, u64 rip, u8 cpl) {
  load_cs(cpu, selector, code, cpl);
  cpu.rip = rip;
  update_mode(cpu);
  return Outcome::jumped;
}

// A code segment named by the instruction itself: no change of privilege.
bool check_direct_code(Vcpu& cpu, u16 selector, const Descriptor& code) {
  if (cpu.long_mode_active() && code.long_code() && code.big()) return fail(cpu, Vector::gp, selector);
  const bool allowed =
      code.conforming_code() ? code.dpl() <= cpu.cpl : rpl_of(selector) <= cpu.cpl && code.dpl() == cpu.cpl;
  if (!allowed) return fail(cpu, Vector::gp, selector);
  if (!code.present()) return fail(cpu, Vector::np, selector);
  return true;
}

bool push_return(StackWriter& stack, Vcpu& cpu, u64 rip, unsigned width) {
  return stack.push(cs_of(cpu).selector, width) && stack.push(rip, width);
}

Outcome real_transfer(Vcpu& cpu, const isa::Insn& insn, const FarPointer& to, bool call) {
  StackWriter stack{cpu};
  if (call && !stack.has_room(2u * insn.operand_bytes)) return Outcome::fault;
  if (to.offset > cs_of(cpu).limit) return cpu.raise_gp(0);
  if (call && !push_return(stack, cpu, next_rip(cpu, insn), insn.operand_bytes)) return Outcome::fault;
  cpu.gpr[isa::rsp] = stack.rsp();
  load_real_cs(cpu, to.selector);
  cpu.rip = to.offset;
  update_mode(cpu);
  return Outcome::jumped;
}

Outcome to_code_segment(Vcpu& cpu, const isa::Insn& insn, const FarPointer& to, Descriptor& code, bool call) {
  if (!check_direct_code(cpu, to.selector, code)) return Outcome::fault;
  StackWriter stack{cpu};
  if (call && !stack.has_room(2u * insn.operand_bytes)) return Outcome::fault;
  if (!check_target(cpu, code, to.offset) || !mark_accessed(cpu, code)) return Outcome::fault;
  if (call) {
    if (!push_return(stack, cpu, next_rip(cpu, insn), insn.operand_bytes)) return Outcome::fault;
    cpu.gpr[isa::rsp] = stack.rsp();
  }
  return arrive(cpu, to.selector, code, to.offset, cpu.cpl);
}

// The code segment behind a call gate, by the rules that CALL and JMP share.
bool fetch_gated_code(Vcpu& cpu, u16 selector, bool call, Descriptor& code) {
  if (null_selector(selector)) return fail(cpu, Vector::gp, 0);
  if (!fetch_descriptor(cpu, selector, Vector::gp, code)) return false;
  bool wrong = !code.code() || code.dpl() > cpu.cpl;
  if (!call && !code.conforming_code()) wrong |= code.dpl() != cpu.cpl;
  if (cpu.long_mode_active()) wrong |= !code.long_code() || code.big();
  if (wrong) return fail(cpu, Vector::gp, selector);
  if (!code.present()) return fail(cpu, Vector::np, selector);
  return true;
}

Outcome call_inner_long(Vcpu& cpu, u16 selector, Descriptor& code, u64 target, u64 return_rip) {
  const u8 cpl = code.dpl();
  u64 rsp;
  if (!inner_stack64(cpu, 4 + 8u * cpl, rsp)) return Outcome::fault;
  if (!check_target(cpu, code, target) || !mark_accessed(cpu, code)) return Outcome::fault;
  StackWriter stack{cpu, ss_of(cpu), rsp, true, cpl, 0};
  if (!stack.push(ss_of(cpu).selector, 8) || !stack.push(cpu.gpr[isa::rsp], 8) ||
      !push_return(stack, cpu, return_rip, 8))
    return Outcome::fault;
  ss_of(cpu) = null_segment(cpl);
  ss_of(cpu).attr = static_cast<u16>(cpl << 5);
  cpu.gpr[isa::rsp] = stack.rsp();
  return arrive(cpu, selector, code, target, cpl);
}

Outcome call_inner(Vcpu& cpu, const Descriptor& gate, Descriptor& code, u64 target, unsigned width, u64 return_rip) {
  const u8 cpl = code.dpl();
  const unsigned parameters = gate.gate_parameters();
  u16 ss_selector;
  u32 esp;
  Segment ss;
  if (!inner_stack(cpu, cpl, ss_selector, esp) || !check_stack_segment(cpu, ss_selector, cpl, Vector::ts, ss))
    return Outcome::fault;
  StackWriter stack{cpu, ss, esp, false, cpl, selector_error(ss_selector)};
  if (!stack.has_room((parameters + 4) * width)) return Outcome::fault;
  if (!check_target(cpu, code, target) || !mark_accessed(cpu, code)) return Outcome::fault;
  u64 parameter[31];
  StackReader caller{cpu};
  for (unsigned i = 0; i < parameters; i++)
    if (!caller.pop(parameter[i], width)) return Outcome::fault;
  if (!stack.push(ss_of(cpu).selector, width) || !stack.push(cpu.gpr[isa::rsp], width)) return Outcome::fault;
  for (unsigned i = parameters; i-- > 0;)
    if (!stack.push(parameter[i], width)) return Outcome::fault;
  if (!push_return(stack, cpu, return_rip, width)) return Outcome::fault;
  ss_of(cpu) = ss;
  cpu.gpr[isa::rsp] = stack.rsp();
  return arrive(cpu, gate.gate_selector(), code, target, cpl);
}

Outcome through_call_gate(Vcpu& cpu, const isa::Insn& insn, const Descriptor& gate, bool call) {
  const u16 selector = gate.gate_selector();
  Descriptor code;
  if (!fetch_gated_code(cpu, selector, call, code)) return Outcome::fault;
  const bool is_long = cpu.long_mode_active();
  const unsigned width = is_long ? 8 : gate.type() & 8 ? 4 : 2;
  const u64 target = width == 2 ? gate.gate_offset() & 0xffff : gate.gate_offset();
  if (call && !code.conforming_code() && code.dpl() < cpu.cpl)
    return is_long ? call_inner_long(cpu, selector, code, target, next_rip(cpu, insn))
                   : call_inner(cpu, gate, code, target, width, next_rip(cpu, insn));
  StackWriter stack{cpu};
  if (call && !stack.has_room(2 * width)) return Outcome::fault;
  if (!check_target(cpu, code, target) || !mark_accessed(cpu, code)) return Outcome::fault;
  if (call) {
    if (!push_return(stack, cpu, next_rip(cpu, insn), width)) return Outcome::fault;
    cpu.gpr[isa::rsp] = stack.rsp();
  }
  return arrive(cpu, selector, code, target, cpu.cpl);
}

Outcome to_task(Vcpu& cpu, const isa::Insn& insn, u16 selector, bool call) {
  Descriptor tss;
  if (!fetch_tss(cpu, selector, tss)) return Outcome::fault;
  switch (switch_task(cpu, selector, tss, call ? TaskSwitch::call : TaskSwitch::jmp, next_rip(cpu, insn))) {
    case Switched::done:
      return Outcome::jumped;
    case Switched::trap:
      return debug_trap(cpu, dr6::bt);
    default:
      return Outcome::fault;
  }
}

Outcome through_system_descriptor(Vcpu& cpu, const isa::Insn& insn, u16 selector, Descriptor& d, bool call) {
  const u8 type = d.type();
  const bool is_long = cpu.long_mode_active();
  const bool call_gate = type == system_type::call32 || (type == system_type::call16 && !is_long);
  const bool task_gate = type == system_type::task_gate && !is_long;
  const bool tss = (type == system_type::tss16 || type == system_type::tss32) && !is_long;
  if (!call_gate && !task_gate && !tss) return cpu.raise_gp(selector_error(selector));
  if (d.dpl() < cpu.cpl || d.dpl() < rpl_of(selector)) return cpu.raise_gp(selector_error(selector));
  if (tss) return to_task(cpu, insn, selector, call);
  if (!d.present()) return cpu.raise(Vector::np, selector_error(selector));
  if (task_gate) return to_task(cpu, insn, d.gate_selector(), call);
  if (!fetch_upper_half(cpu, selector, Vector::gp, d)) return Outcome::fault;
  return through_call_gate(cpu, insn, d, call);
}

Outcome far_transfer(Vcpu& cpu, const isa::Insn& insn, bool call) {
  FarPointer to;
  if (!load_far_operand(cpu, insn, to)) return Outcome::fault;
  if (real_segments(cpu)) return real_transfer(cpu, insn, to, call);
  if (null_selector(to.selector)) return cpu.raise_gp(0);
  Descriptor d;
  if (!fetch_descriptor(cpu, to.selector, Vector::gp, d)) return Outcome::fault;
  if (d.code()) return to_code_segment(cpu, insn, to, d, call);
  if (d.system()) return through_system_descriptor(cpu, insn, to.selector, d, call);
  return cpu.raise_gp(selector_error(to.selector));
}

}  // namespace

namespace sem {

Outcome far_call(Vcpu& cpu, const isa::Insn& insn) { return far_transfer(cpu, insn, true); }
Outcome far_jmp(Vcpu& cpu, const isa::Insn& insn) { return far_transfer(cpu, insn, false); }

}  // namespace sem
}  // namespace trapline::cpu
