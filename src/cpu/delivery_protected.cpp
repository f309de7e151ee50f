// Event delivery in legacy protected mode: task gates, and interrupt and trap gates of 16 and 32 bits, from protected
// and virtual-8086 mode. Intel SDM Vol. 3A 6.12; Vol. 2A, INT n.
#include "cpu/delivery.h"
#include "cpu/stack.h"

namespace trapline::cpu {

namespace {

bool fetch_gate(Vcpu& cpu, const Event& e, Descriptor& gate) {
  const u32 error = e.vector * 8u + 2;
  if (e.vector * 8u + 7 > cpu.idtr.limit) return (void)cpu.raise_gp(error), false;
  u64 raw;
  if (!system_read(cpu, table_address(cpu, cpu.idtr.base, e.vector * 8u), raw)) return false;
  gate.low = static_cast<u32>(raw);
  gate.high = static_cast<u32>(raw >> 32);
  const u8 type = gate.type();
  const bool known = type == system_type::task_gate || type == system_type::int16 || type == system_type::trap16 ||
                     type == system_type::int32 || type == system_type::trap32;
  if (!gate.system() || !known || (e.software() && gate.dpl() < cpu.cpl)) return (void)cpu.raise_gp(error), false;
  if (!gate.present()) return (void)cpu.raise(Vector::np, error), false;
  return true;
}

bool fetch_handler(Vcpu& cpu, u16 selector, Descriptor& code) {
  if (null_selector(selector)) return (void)cpu.raise_gp(0), false;
  if (!fetch_descriptor(cpu, selector, Vector::gp, code)) return false;
  bool wrong = !code.code() || code.dpl() > cpu.cpl;
  // Out of virtual-8086 mode the way leads to ring 0 only.
  if (cpu.sys_flags & flag::vm) wrong |= code.conforming_code() || code.dpl() != 0;
  if (wrong) return (void)cpu.raise_gp(selector_error(selector)), false;
  if (!code.present()) return (void)cpu.raise(Vector::np, selector_error(selector)), false;
  return true;
}

bool push_frame(StackWriter& stack, Vcpu& cpu, const Event& e, bool inner, unsigned width) {
  const bool vm86 = cpu.sys_flags & flag::vm;
  if (vm86)
    for (const Seg s : {Seg::gs, Seg::fs, Seg::ds, Seg::es})
      if (!stack.push(cpu.segment(s).selector, width)) return false;
  if (inner && (!stack.push(ss_of(cpu).selector, width) || !stack.push(cpu.gpr[isa::rsp], width))) return false;
  return stack.push(e.flags, width) && stack.push(cs_of(cpu).selector, width) && stack.push(e.return_rip, width) &&
         (!e.has_error || stack.push(e.error, width));
}

Switched through_task_gate(Vcpu& cpu, const Event& e, u16 selector) {
  Descriptor tss;
  if (!fetch_tss(cpu, selector, tss)) return Switched::fault;
  // The image of EFLAGS that the old TSS keeps is the one that a frame would hold.
  const u32 flags = cpu.sys_flags;
  cpu.sys_flags = (flags & ~flag::rf) | (e.flags & flag::rf);
  const Switched result =
      switch_task(cpu, selector, tss, TaskSwitch::interrupt, e.return_rip, e.has_error ? &e.error : nullptr);
  if (result == Switched::fault && cpu.tr.selector != selector) cpu.sys_flags = flags;
  return result;
}

}  // namespace

Switched deliver_protected(Vcpu& cpu, const Event& e) {
  Descriptor gate, code;
  if (!fetch_gate(cpu, e, gate)) return Switched::fault;
  const u16 selector = gate.gate_selector();
  if (gate.type() == system_type::task_gate) return through_task_gate(cpu, e, selector);
  if (!fetch_handler(cpu, selector, code)) return Switched::fault;

  const unsigned width = gate.type() & 8 ? 4 : 2;
  const u64 target = width == 4 ? gate.gate_offset() : gate.gate_offset() & 0xffff;
  const u8 cpl = code.conforming_code() ? cpu.cpl : code.dpl();
  const bool inner = cpl != cpu.cpl, vm86 = cpu.sys_flags & flag::vm;

  Segment ss = ss_of(cpu);
  u64 rsp = cpu.gpr[isa::rsp];
  u32 stack_error = 0;
  if (inner) {
    u16 ss_selector;
    u32 esp;
    if (!inner_stack(cpu, cpl, ss_selector, esp) || !check_stack_segment(cpu, ss_selector, cpl, Vector::ts, ss))
      return Switched::fault;
    rsp = esp;
    stack_error = selector_error(ss_selector);
  }
  const unsigned items = (vm86 ? 9u : inner ? 5u : 3u) + (e.has_error ? 1u : 0u);
  StackWriter stack{cpu, ss, rsp, false, cpl, stack_error};
  if (!stack.has_room(items * width)) return Switched::fault;
  if (!check_target(cpu, code, target) || !mark_accessed(cpu, code)) return Switched::fault;
  if (!push_frame(stack, cpu, e, inner, width)) return Switched::fault;

  if (vm86)
    for (const Seg s : {Seg::gs, Seg::fs, Seg::ds, Seg::es}) cpu.segment(s) = null_segment(0);
  ss_of(cpu) = ss;
  cpu.gpr[isa::rsp] = stack.rsp();
  load_cs(cpu, selector, code, cpl);
  cpu.rip = target;
  const bool interrupt = (gate.type() & 7) == system_type::int16;
  cpu.sys_flags &= ~(flag::tf | flag::nt | flag::rf | flag::vm | (interrupt ? flag::if_ : 0));
  update_mode(cpu);
  return Switched::done;
}

}  // namespace trapline::cpu
