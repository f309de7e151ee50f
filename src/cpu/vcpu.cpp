// What follows from the registers (mode, masks, permissions) and the state after RESET and INIT.
#include "cpu/vcpu.h"

#include "base/invariant.h"
#include "cpu/debug_port.h"
#include "cpu/fpu.h"
#include "cpu/lapic.h"
#include "cpu/mmu_internal.h"

namespace trapline::cpu {

namespace {

Mode mode_of(const Vcpu& cpu) {
  if (!(cpu.cr0 & cr0::pe)) return Mode::real;
  const Segment& cs = cpu.segment(Seg::cs);
  if (cpu.long_mode_active()) return cs.long_mode() ? Mode::long64 : cs.big() ? Mode::compat32 : Mode::compat16;
  if (cpu.sys_flags & flag::vm) return Mode::vm86;
  return cs.big() ? Mode::protected32 : Mode::protected16;
}

// Can no limit and no type check fail?
void update_segment(const Vcpu& cpu, Segment& s, bool plain64) {
  if (cpu.mode == Mode::long64) {
    s.linear_base = plain64 ? 0 : s.base;
    s.flat_read = s.flat_write = true;
    return;
  }
  s.linear_base = s.base;
  if (cpu.mode == Mode::real || cpu.mode == Mode::vm86) {
    s.flat_read = s.flat_write = s.limit == 0xffffffff;
    return;
  }
  const bool code = s.attr & 8, bit1 = s.attr & 2, expand_down = (s.attr & 0xc) == 4;
  const bool whole = s.usable && s.limit == 0xffffffff && !expand_down;
  s.flat_read = whole && (!code || bit1);
  s.flat_write = whole && !code && bit1;
}

bool data_breakpoint_armed(u64 dr7) {
  for (unsigned i = 0; i < 4; i++)
    if ((dr7 >> (2 * i) & 3) && (dr7 >> (16 + 4 * i) & 1)) return true;  // R/W = 01 or 11
  return false;
}

Segment real_segment(u16 selector, u64 base, u16 attr) {
  Segment s;
  s.selector = selector;
  s.attr = attr;
  s.limit = 0xffff;
  s.base = base;
  s.usable = true;
  return s;
}

// Family, model and stepping, as RESET leaves them in EDX.
u32 signature(const Vcpu& cpu) {
  return cpu.cpuid ? cpu.cpuid->query(1, 0, cpu.index, cpu.xcr0, cpu.msr.xss, cpu.cr4).eax : 0;
}

void reset_segments(Vcpu& cpu) {
  for (Segment& s : cpu.seg) s = real_segment(0, 0, 0x93);
  cpu.segment(Seg::cs) = real_segment(0xf000, 0xffff0000, 0x9b);
  cpu.ldtr = real_segment(0, 0, 0x82);
  cpu.tr = real_segment(0, 0, 0x8b);
  cpu.gdtr = cpu.idtr = TableRegister{0, 0xffff};
}

}  // namespace

void update_access(Vcpu& cpu) {
  const bool ac = cpu.sys_flags & flag::ac;
  const bool user = cpu.cpl == 3 && !kernel_at_cpl3(cpu);
  if (user) {
    cpu.need_read = perm::user_read;
    cpu.need_write = perm::user_write;
  } else {
    const bool smap = (cpu.cr4 & cr4::smap) && !ac;
    cpu.need_read = smap ? perm::kernel_read : perm::kernel_ac_read;
    cpu.need_write = smap ? perm::kernel_write : perm::kernel_ac_write;
  }
  cpu.need_fetch = user ? perm::user_fetch : perm::kernel_fetch;
  const bool watching = data_breakpoint_armed(cpu.debug.dr7) || (cpu.debugger && cpu.debugger->watching());
  if ((cpu.cpl == 3 && ac && (cpu.cr0 & cr0::am)) || watching) [[unlikely]]
    cpu.need_read = cpu.need_write = perm::never;
}

void update_segment(Vcpu& cpu, Seg seg) {
  const u8 number = static_cast<u8>(seg);
  update_segment(cpu, cpu.seg[number], number <= static_cast<u8>(Seg::ds));
}

void update_mode(Vcpu& cpu) {
  cpu.mode = mode_of(cpu);
  cpu.linear_mask = cpu.mode == Mode::long64 ? ~u64{0} : 0xffffffff;
  for (unsigned i = 0; i < 6; i++) update_segment(cpu, cpu.seg[i], i <= static_cast<u8>(Seg::ds));
  update_access(cpu);
}

ArchState Vcpu::save() const {
  INVARIANT(!x87.live, "the x87 registers are in the host's unit");
  constexpr u32 kPosted = attention::any_nmi | attention::init | attention::sipi;
  ArchState state = *this;
  state.scratch = 0;
  state.posted = attention->load(std::memory_order_acquire) & kPosted;
  return state;
}

void Vcpu::restore(const State& state) {
  INVARIANT(!state.x87.live, "a saved state holds its x87 registers");
  static_cast<ArchState&>(*this) = state;
  posted = 0;
  fault = Fault{};
  debug_hits = 0;
  attention->store(state.posted | attention::interrupt | attention::timer, std::memory_order_release);
  tlb_flush_all(*this);
  update_mode(*this);
}

void reset(Vcpu& cpu, bool init) {
  const u32 edx = signature(cpu);
  for (u64& r : cpu.gpr) r = 0;
  cpu.gpr[isa::rdx] = edx;
  cpu.rip = 0xfff0;
  cpu.set_rflags_raw(flag::fixed);
  cpu.cpl = 0;
  // INIT keeps CD and NW, XCR0, the MSRs but EFER, and the FPU and vector state (SDM table 10-1).
  cpu.cr0 = init ? (cpu.cr0 & (cr0::cd | cr0::nw)) | cr0::et : cr0::cd | cr0::nw | cr0::et;
  cpu.cr2 = cpu.cr3 = cpu.cr4 = cpu.efer = 0;
  for (u64& p : cpu.pdpte) p = 0;
  cpu.debug = DebugRegisters{};
  cpu.debug_hits = 0;
  reset_segments(cpu);
  if (!init) {
    cpu.xcr0 = 1;
    cpu.msr = Msrs{};
    reset_fpu(cpu);
  }
  cpu.interrupt_shadow = cpu.nmi_blocked = cpu.interrupt_waiting = cpu.nmi_waiting = false;
  cpu.fault = Fault{};
  cpu.activity = cpu.index == 0 ? Activity::running : Activity::wait_for_sipi;
  if (cpu.lapic) cpu.lapic->reset(init);
  tlb_flush_all(cpu);
  update_mode(cpu);
}

}  // namespace trapline::cpu
