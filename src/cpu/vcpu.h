// One vCPU: its architectural state (channel/arch_state.h), the caches that every engine reads (segment and access
// masks, TLB), and what it is connected to.
//
// Owned by its vCPU thread: nothing here may be touched by another thread but `attention` and what says so.
#pragma once

#include <array>
#include <atomic>
#include <memory>

#include "base/addr.h"
#include "base/guest_memory.h"
#include "base/types.h"
#include "channel/arch_state.h"
#include "channel/counters.h"
#include "channel/posted.h"
#include "cpu/bus.h"
#include "cpu/clock.h"
#include "cpu/cpuid.h"
#include "cpu/fault.h"
#include "cpu/trail.h"
#include "isa/insn.h"

namespace trapline::cpu {

class Lapic;        // cpu/lapic.h
class CodeMap;      // cpu/code_map.h
class DebugPort;    // debugger's view: breakpoints; null without one
struct Para;        // cpu/para.h
struct Hypervisor;  // cpu/hypervisor.h
struct Tlb;         // cpu/mmu.h
struct TlbMirror;

using isa::Seg;

namespace flag = channel::flag;  // RFLAGS
using channel::Activity;
using channel::ArchState;
using channel::Msrs;
using channel::Segment;
using channel::TableRegister;
using channel::VectorState;
using channel::X87State;
using DebugRegisters = channel::BreakpointRegisters;

// -- Control registers
namespace cr0 {
inline constexpr u64 pe = 1, mp = 2, em = 4, ts = 8, et = 16, ne = 32, wp = 1u << 16, am = 1u << 18, nw = 1u << 29,
                     cd = 1u << 30, pg = 1u << 31;
}
namespace cr4 {
inline constexpr u64 vme = 1, pvi = 2, tsd = 4, de = 8, pse = 16, pae = 32, mce = 64, pge = 128, pce = 256,
                     osfxsr = 512, osxmmexcpt = 1024, umip = 2048, la57 = 4096, fsgsbase = 1u << 16, pcide = 1u << 17,
                     osxsave = 1u << 18, smep = 1u << 20, smap = 1u << 21;
}
namespace efer {
inline constexpr u64 sce = 1, lme = 1u << 8, lma = 1u << 10, nxe = 1u << 11, ffxsr = 1u << 14, autoibrs = 1u << 21;
}

// What CS and CR0/EFER make of the code.
enum class Mode : u8 { real, vm86, protected16, protected32, compat16, compat32, long64 };

// -- Events
namespace attention = channel::attention;  // the bits of Vcpu::attention

struct Vcpu : ArchState {
  // -- What engines look at with every access
  alignas(64) u32 need_read = 0, need_write = 0,
                  need_fetch = 0;  // TLB permission bits an access needs now; kept by update_mode()
  Mode mode = Mode::real;
  u64 linear_mask = 0xffffffff;  // ~0 in 64-bit mode, 2^32-1 elsewhere (A20 is always on)
  Tlb* tlb = nullptr;            // owned by `mmu`
  GuestMemory* ram = nullptr;
  std::byte* ram_base = nullptr;
  std::atomic<u32>* attention = &own_attention;  // may be moved into a page shared with the monitor
  // 1 while the vCPU's thread sleeps: who sets attention bits exchanges it for 0 and wakes (channel::wake). Null: it
  // never sleeps inside an engine.
  std::atomic<u32>* sleep_word = nullptr;
  std::atomic<u32> own_attention{0};
  // DR6 bits 3:0 of the data and I/O breakpoints that the instruction under way has hit. After the instruction the
  // engine passes them to debug_trap() and clears them; an instruction that faults leaves them to be cleared likewise.
  u32 debug_hits = 0;

  u64 slice_start = 0;           // `retired` when clock->virtual_base was last written (--clock instructions)
  u64 timer_deadline = ~u64{0};  // guest TSC (VM-wide, without TSC_ADJUST) at which lapic->on_timer() is due; ~0: never

  Fault fault;  // set by whatever returned Outcome::fault

  // -- Connections (not owned unless said)
  u32 index = 0;  // 0-based vCPU number, = initial APIC id
  Bus* bus = nullptr;
  Lapic* lapic = nullptr;
  Clock* clock = nullptr;
  CodeMap* code = nullptr;       // VM-wide
  const Cpuid* cpuid = nullptr;  // VM-wide policy
  DebugPort* debugger = nullptr;
  void* engine_state = nullptr;      // the running engine's own
  TlbMirror* tlb_mirror = nullptr;   // of the running engine; null without one
  Para* para = nullptr;              // paravirtual interface, VM-wide; null without one
  Hypervisor* hypervisor = nullptr;  // of a guest whose kernel runs deprivileged, VM-wide; null: there is none

  alignas(64) Trail trail;  // for crash reports
  u64 slept_ticks = 0;      // host TSC ticks that its thread has slept of its own accord
  u64 last_pause = 0;       // `retired` at the last PAUSE
  u32 pauses = 0;           // that came one soon after the other: see pause() in cpu/control.cpp

  using Counters = channel::Counters;
  Counters count;

  // Of the policy; without one (tests) the host's.
  isa::Vendor vendor() const { return cpuid ? cpuid->vendor() : isa::host_vendor(); }

  // The guest's TSC is the VM's and this.
  u64 tsc_shift() const { return clock->guest_origin + msr.tsc_adjust; }
  u64 tsc() const { return clock->tsc(retired - slice_start) + tsc_shift(); }
  u64 vm_tsc() const { return clock->tsc(retired - slice_start); }

  Segment& segment(Seg s) { return seg[static_cast<u8>(s)]; }
  const Segment& segment(Seg s) const { return seg[static_cast<u8>(s)]; }
  // Of `offset` in a segment, which is not checked.
  Gva linear(Seg s, u64 offset) const { return Gva{(segment(s).linear_base + offset) & linear_mask}; }
  bool in_long64() const { return mode == Mode::long64; }
  isa::CodeSize code_size() const {
    return mode == Mode::long64                                  ? isa::CodeSize::bits64
           : mode == Mode::protected32 || mode == Mode::compat32 ? isa::CodeSize::bits32
                                                                 : isa::CodeSize::bits16;
  }

  // The architectural state with what was posted and not taken yet. x87 state must be parked; interrupts that wait in
  // the local APIC are its own state.
  using State = ArchState;
  State save() const;
  // Takes over `state`; what the TLB and the derived fields held is forgotten. Restore the local APIC afterwards.
  void restore(const State& state);

  Outcome raise(Vector v, u32 error = 0) {
    fault = Fault{v, error, 0, 0};
    return Outcome::fault;
  }
  Outcome raise_gp(u32 error = 0) { return raise(Vector::gp, error); }
  Outcome raise_ud() { return raise(Vector::ud); }
};

// Recomputes everything derived from CR0, CR4, EFER, RFLAGS, CPL and the segment registers: mode, linear_base, flat_*,
// need_*, linear_mask. To be called after any of them changed. Cheap.
void update_mode(Vcpu& cpu);
// The part of it that the content of one segment register decides; enough for all but CS.
void update_segment(Vcpu& cpu, Seg seg);
// The part of it that CPL, RFLAGS.AC, CR0.AM, CR4.SMAP and DR7 decide: need_*. Enough after STAC, CLAC, MOV DR7.
void update_access(Vcpu& cpu);

// The state after RESET (SDM Vol. 3A table 10-1) or INIT; INIT keeps what the manual says INIT keeps.
void reset(Vcpu& cpu, bool init);

}  // namespace trapline::cpu
