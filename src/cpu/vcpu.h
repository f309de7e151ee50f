// The architectural state of one vCPU, plus the caches that every engine reads (segment and access masks, TLB).
//
// Owned by its vCPU thread: nothing here may be touched by another thread but `attention` and what says so.
// Manual: Intel SDM Vol. 3A chapters 2 (registers), 3 (segments), 4 (paging), 6 (exceptions).
#pragma once

#include <array>
#include <atomic>
#include <memory>

#include "base/addr.h"
#include "base/guest_memory.h"
#include "base/types.h"
#include "channel/counters.h"
#include "channel/posted.h"
#include "cpu/bus.h"
#include "cpu/clock.h"
#include "cpu/cpuid.h"
#include "cpu/fault.h"
#include "cpu/trail.h"
#include "isa/insn.h"

namespace trapline::cpu {

class Lapic;      // cpu/lapic.h
class CodeMap;    // cpu/code_map.h
class DebugPort;  // debugger's view: breakpoints; null without one
struct Para;      // cpu/para.h
struct Tlb;       // cpu/mmu.h
struct TlbMirror;

using isa::Seg;

// -- RFLAGS
namespace flag {
inline constexpr u32 cf = 1u << 0, pf = 1u << 2, af = 1u << 4, zf = 1u << 6, sf = 1u << 7, tf = 1u << 8, if_ = 1u << 9,
                     df = 1u << 10, of = 1u << 11, iopl = 3u << 12, nt = 1u << 14, rf = 1u << 16, vm = 1u << 17,
                     ac = 1u << 18, vif = 1u << 19, vip = 1u << 20, id = 1u << 21;
inline constexpr u32 arith = cf | pf | af | zf | sf | of;
inline constexpr u32 fixed = 2;  // bit 1 always reads 1
}  // namespace flag

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

// -- Segments
// The hidden part. `attr` is in the VMX access-rights layout: type 3:0, S 4, DPL 6:5, P 7, AVL 12, L 13, D/B 14, G 15.
struct Segment {
  u16 selector = 0;
  u16 attr = 0;
  u32 limit = 0;        // bytes, inclusive, granularity applied
  u64 base = 0;         // as loaded (FS, GS in 64-bit mode: the MSR)
  u64 linear_base = 0;  // what addressing adds: base, but 0 for ES, CS, SS, DS in 64-bit mode. Kept by update_mode()
  bool usable = false;  // false after a null selector was loaded (outside 64-bit mode accesses then fault)
  bool flat_read = false, flat_write = false;  // no limit or type check can fail: kept by update_mode()

  u8 type() const { return attr & 15; }
  bool system() const { return !(attr & 16); }
  u8 dpl() const { return attr >> 5 & 3; }
  bool present() const { return attr & 0x80; }
  bool long_mode() const { return attr & 0x2000; }
  bool big() const { return attr & 0x4000; }
};

struct TableRegister {
  u64 base = 0;
  u16 limit = 0;
};

// What CS and CR0/EFER make of the code.
enum class Mode : u8 { real, vm86, protected16, protected32, compat16, compat32, long64 };

// -- Extended state
struct VectorState {
  alignas(64) u8 zmm[32][64] = {};  // XMM and YMM are the low 16 and 32 bytes
  u64 k[8] = {};
  u32 mxcsr = 0x1f80;
};

// x87 and MMX. While `live`, the registers are in the host's x87 unit (this thread's) and `image` is stale; x87_park()
// and x87_unpark() in cpu/fpu.h move them. `image` is an FXSAVE64 image of which only bytes 0..159 are meaningful.
struct X87State {
  alignas(16) u8 image[512] = {};
  bool live = false;
  u64 fip = 0, fdp = 0;  // last non-control x87 instruction and its operand (guest addresses; the host's are of no use)
  u16 fop = 0, fcs = 0, fds = 0;
  bool ferr = false;  // CR0.NE = 0: FERR# is up, an unmasked exception having been reported to IRQ 13
};

// -- Events
namespace attention = channel::attention;  // the bits of Vcpu::attention

enum class Activity : u8 { running, halted, wait_for_sipi, shutdown };

struct DebugRegisters {
  u64 dr[4] = {};
  u64 dr6 = 0xffff0ff0;
  u64 dr7 = 0x400;
};

struct Msrs {
  u64 star = 0, lstar = 0, cstar = 0, fmask = 0, kernel_gs_base = 0;
  u64 sysenter_cs = 0, sysenter_esp = 0, sysenter_eip = 0;
  u64 pat = 0x0007040600070406, misc_enable = 1, tsc_adjust = 0, tsc_aux = 0, debugctl = 0, spec_ctrl = 0, xss = 0;
  u64 mtrr_def_type = 0, mtrr_fixed[11] = {}, mtrr_base[8] = {}, mtrr_mask[8] = {};
  u64 mcg_status = 0, mcg_ctl = 0, mc_ctl[4] = {}, mc_addr[4] = {}, mc_misc[4] = {}, feature_control = 1;
  u64 kvm_system_time = 0, kvm_wall_clock = 0;
};

struct Vcpu {
  // -- Hot: first cache lines
  alignas(64) u64 gpr[17] = {};  // [16] is always 0: "no register" in effective addresses
  u64 rip = 0;
  u64 scratch = 0;  // the running engine's: an address that no register holds
  // The arithmetic flags as LAHF; SETO AL leave them in AX: OF in bit 0, and SF ZF AF PF CF in bits 15, 14, 12, 10, 8.
  u16 arith = 0x0200;
  u8 cpl = 0;
  Mode mode = Mode::real;
  // RFLAGS without the arithmetic flags and without bit 1 (IF, DF, TF, IOPL, NT, RF, VM, AC, VIF, VIP, ID).
  u32 sys_flags = 0;
  u32 need_read = 0, need_write = 0, need_fetch = 0;  // TLB permission bits an access needs now; kept by update_mode()
  u64 linear_mask = 0xffffffff;                       // ~0 in 64-bit mode, 2^32-1 elsewhere (A20 is always on)
  Tlb* tlb = nullptr;                                 // owned by `mmu`
  GuestMemory* ram = nullptr;
  std::byte* ram_base = nullptr;
  Segment seg[6];  // by isa::Seg

  std::atomic<u32> own_attention{0};
  std::atomic<u32>* attention = &own_attention;  // may be moved into a page shared with the monitor
  // 1 while the vCPU's thread sleeps: who sets attention bits exchanges it for 0 and wakes (channel::wake). Null: it
  // never sleeps inside an engine.
  std::atomic<u32>* sleep_word = nullptr;
  // After STI, MOV SS, POP SS: no interrupt (and for SS no #DB) before the next instruction ends.
  bool interrupt_shadow = false;
  bool nmi_blocked = false;  // from NMI delivery to IRET
  // Taken from `attention` but not deliverable yet: interrupts_may_be_open() and IRET ask again (cpu/events.h).
  bool interrupt_waiting = false, nmi_waiting = false;
  // DR6 bits 3:0 of the data and I/O breakpoints that the instruction under way has hit. After the instruction the
  // engine passes them to debug_trap() and clears them; an instruction that faults leaves them to be cleared likewise.
  u32 debug_hits = 0;

  // Instructions retired. Engines may lag inside a block, but it is exact whenever anything outside the engine is
  // called (semantics, bus, clock) and on return from Engine::run.
  u64 retired = 0;
  u64 slice_start = 0;           // `retired` when clock->virtual_base was last written (--clock instructions)
  u64 timer_deadline = ~u64{0};  // guest TSC (VM-wide, without TSC_ADJUST) at which lapic->on_timer() is due; ~0: never

  // -- The rest of the architecture
  u64 cr0 = 0x60000010, cr2 = 0, cr3 = 0, cr4 = 0, efer = 0, xcr0 = 1;
  u64 pdpte[4] = {};  // PAE: loaded by MOV CR3 (SDM 4.4.1)
  Segment ldtr, tr;
  TableRegister gdtr, idtr;
  DebugRegisters debug;
  Msrs msr;
  VectorState vec;
  X87State x87;

  Fault fault;  // set by whatever returned Outcome::fault
  Activity activity = Activity::running;

  // -- Connections (not owned unless said)
  u32 index = 0;  // 0-based vCPU number, = initial APIC id
  Bus* bus = nullptr;
  Lapic* lapic = nullptr;
  Clock* clock = nullptr;
  CodeMap* code = nullptr;       // VM-wide
  const Cpuid* cpuid = nullptr;  // VM-wide policy
  DebugPort* debugger = nullptr;
  void* engine_state = nullptr;     // the running engine's own
  TlbMirror* tlb_mirror = nullptr;  // of the running engine; null without one
  Para* para = nullptr;             // paravirtual interface, VM-wide; null without one

  alignas(64) Trail trail;  // for crash reports
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

  u32 rflags() const {
    const u32 a = arith;
    return sys_flags | flag::fixed | (a >> 8 & (flag::cf | flag::pf | flag::af | flag::zf | flag::sf)) | (a & 1) << 11;
  }
  // Splits `value` without any privilege check. Call update_mode() when TF, VM or AC changed.
  void set_rflags_raw(u32 value) {
    arith = static_cast<u16>((value & 0xd5) << 8 | 0x0200 | (value >> 11 & 1));
    sys_flags = value & ~(flag::arith | 0xffc0802a);
  }
  bool carry() const { return arith & 0x100; }
  bool in_long64() const { return mode == Mode::long64; }
  bool long_mode_active() const { return efer & efer::lma; }
  bool protected_mode() const { return cr0 & cr0::pe; }
  isa::CodeSize code_size() const {
    return mode == Mode::long64                                  ? isa::CodeSize::bits64
           : mode == Mode::protected32 || mode == Mode::compat32 ? isa::CodeSize::bits32
                                                                 : isa::CodeSize::bits16;
  }

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
// The part of it that CPL, RFLAGS.AC, CR0.AM, CR4.SMAP and DR7 decide: need_*. Enough after STAC, CLAC, MOV DR7.
void update_access(Vcpu& cpu);

// The state after RESET (SDM Vol. 3A table 10-1) or INIT; INIT keeps what the manual says INIT keeps.
void reset(Vcpu& cpu, bool init);

}  // namespace trapline::cpu
