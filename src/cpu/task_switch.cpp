#include "cpu/task_switch.h"

#include "base/trace.h"
#include "cpu/events.h"
#include "cpu/semantics.h"
#include "cpu/stack.h"

namespace trapline::cpu {

namespace {

// The dynamic part of a TSS, 16- and 32-bit alike. Layouts: SDM Vol. 3A figures 7-2 and 7-10.
struct TaskState {
  u32 cr3 = 0, eip = 0, eflags = 0;
  u32 gpr[8] = {};
  u16 segment[6] = {};  // by isa::Seg
  u16 ldt = 0;
  bool trap = false;
};

constexpr u32 kMinLimit32 = 0x67, kMinLimit16 = 0x2b;
constexpr u32 kSaved32 = 0x20, kSaved16 = 0x0e;  // first byte of what a switch saves

bool wide(u8 type) { return type & 8; }
bool fail(Vcpu& cpu, Vector v, u16 selector) { return (void)cpu.raise(v, selector_error(selector)), false; }

template <class T>
T at(const u8* bytes, unsigned offset) {
  T value;
  std::memcpy(&value, bytes + offset, sizeof value);
  return value;
}
template <class T>
void put(u8* bytes, unsigned offset, T value) {
  std::memcpy(bytes + offset, &value, sizeof value);
}

bool read_state(Vcpu& cpu, u64 base, bool is32, TaskState& out) {
  u8 raw[104] = {};
  const auto read = [&](unsigned first, unsigned end) {
    return read_system(cpu, table_address(cpu, base, first), raw + first, end - first);
  };
  if (!is32) {
    if (!read(0, 44)) return false;
    out.eip = at<u16>(raw, 0x0e);
    out.eflags = at<u16>(raw, 0x10);
    for (unsigned i = 0; i < 8; i++) out.gpr[i] = at<u16>(raw, 0x12 + 2 * i);
    for (unsigned i = 0; i < 4; i++) out.segment[i] = at<u16>(raw, 0x22 + 2 * i);  // ES CS SS DS; FS and GS become null
    out.ldt = at<u16>(raw, 0x2a);
    return true;
  }
  if (!read(0x1c, 0x20) || !read(0x20, 0x60) || !read(0x60, 0x68)) return false;
  out.cr3 = at<u32>(raw, 0x1c);
  out.eip = at<u32>(raw, 0x20);
  out.eflags = at<u32>(raw, 0x24);
  for (unsigned i = 0; i < 8; i++) out.gpr[i] = at<u32>(raw, 0x28 + 4 * i);
  for (unsigned i = 0; i < 6; i++) out.segment[i] = at<u16>(raw, 0x48 + 4 * i);
  out.ldt = at<u16>(raw, 0x60);
  out.trap = raw[0x64] & 1;
  return true;
}

// Writes the registers into the current TSS; LDT and CR3 fields are static. All or nothing.
bool save_state(Vcpu& cpu, u32 eip, u32 eflags) {
  u8 raw[64] = {};
  const u64 base = cpu.tr.base;
  if (wide(cpu.tr.type())) {
    put<u32>(raw, 0, eip);
    put<u32>(raw, 4, eflags);
    for (unsigned i = 0; i < 8; i++) put(raw, 8 + 4 * i, static_cast<u32>(cpu.gpr[i]));
    for (unsigned i = 0; i < 6; i++) put<u32>(raw, 40 + 4 * i, cpu.seg[i].selector);
    return write_system(cpu, table_address(cpu, base, kSaved32), raw, 64);
  }
  put(raw, 0, static_cast<u16>(eip));
  put(raw, 2, static_cast<u16>(eflags));
  for (unsigned i = 0; i < 8; i++) put(raw, 4 + 2 * i, static_cast<u16>(cpu.gpr[i]));
  for (unsigned i = 0; i < 4; i++) put(raw, 20 + 2 * i, cpu.seg[i].selector);
  return write_system(cpu, table_address(cpu, base, kSaved16), raw, 28);
}

// What can still fail without a trace: limits, and that all of both TSSs and their descriptors can be reached.
bool check_before(Vcpu& cpu, u16 selector, const Descriptor& tss, Descriptor& old_tss, TaskState& state) {
  const bool is32 = wide(tss.type());
  if (tss.limit() < (is32 ? kMinLimit32 : kMinLimit16)) return fail(cpu, Vector::ts, selector);
  const u32 saved_end = wide(cpu.tr.type()) ? 0x5f : 0x29;
  if (!cpu.tr.usable || cpu.tr.limit < saved_end) return fail(cpu, Vector::ts, cpu.tr.selector);
  return fetch_descriptor(cpu, cpu.tr.selector, Vector::ts, old_tss) && read_state(cpu, tss.base(), is32, state);
}

// The registers of the new task, selectors with unusable hidden parts: from here on faults are the new task's.
void commit(Vcpu& cpu, u16 selector, const Descriptor& tss, const TaskState& state, bool nested) {
  cpu.tr = segment_from(selector, tss);
  cpu.tr.attr |= 2;  // busy
  cpu.cr0 |= cr0::ts;
  cpu.debug.dr7 &= ~u64{0x155};  // local breakpoints belong to the old task
  for (unsigned i = 0; i < 8; i++) cpu.gpr[i] = wide(tss.type()) ? state.gpr[i] : state.gpr[i] | 0xffff0000u;
  cpu.set_rflags_raw(state.eflags | (nested ? flag::nt : 0));
  cpu.rip = state.eip;
  for (unsigned i = 0; i < 6; i++) cpu.seg[i] = null_segment(state.segment[i]);
  cpu.ldtr = null_segment(state.ldt);
  cpu.cpl = cpu.sys_flags & flag::vm ? 3 : rpl_of(state.segment[static_cast<u8>(Seg::cs)]);
  cpu.interrupt_shadow = false;
}

// Table 7-1: CS must fit its own RPL, which is the new CPL.
bool load_code_segment(Vcpu& cpu, u16 selector) {
  Descriptor d;
  if (null_selector(selector)) return fail(cpu, Vector::ts, 0);
  if (!fetch_descriptor(cpu, selector, Vector::ts, d)) return false;
  const bool level_ok = d.conforming_code() ? d.dpl() <= rpl_of(selector) : d.dpl() == rpl_of(selector);
  if (!d.code() || !level_ok) return fail(cpu, Vector::ts, selector);
  if (!d.present()) return fail(cpu, Vector::np, selector);
  if (!mark_accessed(cpu, d)) return false;
  load_cs(cpu, selector, d, rpl_of(selector));
  return true;
}

bool load_segments(Vcpu& cpu, const TaskState& state) {
  if (!check_ldt(cpu, state.ldt, Vector::ts, Vector::ts, cpu.ldtr)) return false;
  if (cpu.sys_flags & flag::vm) {
    for (unsigned i = 0; i < 6; i++) cpu.seg[i] = vm86_segment(state.segment[i]);
    return true;
  }
  const auto selector = [&](Seg s) { return state.segment[static_cast<u8>(s)]; };
  Segment loaded;
  if (!load_code_segment(cpu, selector(Seg::cs))) return false;
  if (!check_stack_segment(cpu, selector(Seg::ss), cpu.cpl, Vector::ts, loaded)) return false;
  ss_of(cpu) = loaded;
  for (const Seg s : {Seg::ds, Seg::es, Seg::fs, Seg::gs}) {
    if (!check_data_segment(cpu, selector(s), cpu.cpl, Vector::ts, loaded)) return false;
    cpu.segment(s) = loaded;
  }
  return true;
}

// Past the commit point: CR3, LDT, segments, the exception's error code, EIP against the limit.
bool finish(Vcpu& cpu, const Descriptor& tss, const TaskState& state, const u32* error) {
  const bool is32 = wide(tss.type());
  if (is32 && (cpu.cr0 & cr0::pg) && !write_cr3(cpu, state.cr3)) return false;
  if (!load_segments(cpu, state)) return false;
  update_mode(cpu);
  if (error) {
    StackWriter stack{cpu};
    if (!stack.push(*error, is32 ? 4 : 2)) return false;
    cpu.gpr[isa::rsp] = stack.rsp();
  }
  if (cpu.rip > cs_of(cpu).limit) return fail(cpu, Vector::gp, 0);
  return true;
}

}  // namespace

bool fetch_tss(Vcpu& cpu, u16 selector, Descriptor& out) {
  if (selector & 4) return fail(cpu, Vector::gp, selector);
  if (!fetch_descriptor(cpu, selector, Vector::gp, out)) return false;
  const bool available = out.system() && (out.type() == system_type::tss16 || out.type() == system_type::tss32);
  if (!available) return fail(cpu, Vector::gp, selector);
  if (!out.present()) return fail(cpu, Vector::np, selector);
  return true;
}

Switched switch_task(Vcpu& cpu, u16 selector, Descriptor tss, TaskSwitch why, u64 next_rip, const u32* error) {
  const bool nested = why == TaskSwitch::call || why == TaskSwitch::interrupt;
  TaskState state;
  Descriptor old_tss;
  if (!check_before(cpu, selector, tss, old_tss, state)) return Switched::fault;

  // The old task: its registers (IRET leaves it without NT), and unless it will be returned to, its busy bit.
  const u32 old_flags = why == TaskSwitch::iret ? cpu.rflags() & ~flag::nt : cpu.rflags();
  if (!save_state(cpu, static_cast<u32>(next_rip), old_flags)) return Switched::fault;
  if (!nested && !mark_busy(cpu, old_tss, false)) return Switched::fault;
  // The new one: the link back, and busy. A task that returns to itself reads what was saved just now.
  if (nested && !system_write(cpu, Gva{tss.base()}, cpu.tr.selector)) return Switched::fault;
  if (!mark_busy(cpu, tss, true)) return Switched::fault;
  if (!read_state(cpu, tss.base(), wide(tss.type()), state)) return Switched::fault;

  TRACE(exceptions, "task {:#x} -> {:#x}", cpu.tr.selector, selector);
  commit(cpu, selector, tss, state, nested);
  update_mode(cpu);
  const bool ok = finish(cpu, tss, state, error);
  update_mode(cpu);
  if (!ok) return Switched::fault;
  interrupts_may_be_open(cpu);
  return state.trap ? Switched::trap : Switched::done;
}

}  // namespace trapline::cpu
