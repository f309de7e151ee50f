// Everything architectural of one vCPU, as plain data: what the engines work on (cpu::Vcpu is derived from it), what
// --verify and the debugger look at, and what is saved and restored. What follows from it is not part of it, but for
// the derived fields of Segment.
//
// Manual: Intel SDM Vol. 3A chapters 2 (registers), 3 (segments), 4 (paging), 6 (exceptions).
#pragma once

#include <type_traits>

#include "base/types.h"

namespace trapline::channel {

// Bits of RFLAGS.
namespace flag {
inline constexpr u32 cf = 1u << 0, pf = 1u << 2, af = 1u << 4, zf = 1u << 6, sf = 1u << 7, tf = 1u << 8, if_ = 1u << 9,
                     df = 1u << 10, of = 1u << 11, iopl = 3u << 12, nt = 1u << 14, rf = 1u << 16, vm = 1u << 17,
                     ac = 1u << 18, vif = 1u << 19, vip = 1u << 20, id = 1u << 21;
inline constexpr u32 arith = cf | pf | af | zf | sf | of;
inline constexpr u32 fixed = 2;  // bit 1 always reads 1
}  // namespace flag

// A segment register with its hidden part. `attr` is in the VMX access-rights layout: type 3:0, S 4, DPL 6:5, P 7,
// AVL 12, L 13, D/B 14, G 15.
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
  bool operator==(const Segment&) const = default;
};

struct TableRegister {
  u64 base = 0;
  u16 limit = 0;
  bool operator==(const TableRegister&) const = default;
};

struct VectorState {
  alignas(64) u8 zmm[32][64] = {};  // XMM and YMM are the low 16 and 32 bytes
  u64 k[8] = {};
  u32 mxcsr = 0x1f80;
  bool operator==(const VectorState&) const = default;
};

// x87 and MMX. While `live`, the registers are in the host's x87 unit (this thread's) and `image` is stale; x87_park()
// and x87_unpark() in cpu/fpu.h move them. `image` is an FXSAVE64 image of which only bytes 0..159 are meaningful.
struct X87State {
  alignas(16) u8 image[512] = {};
  bool live = false;
  u64 fip = 0, fdp = 0;  // last non-control x87 instruction and its operand (guest addresses; the host's are of no use)
  u16 fop = 0, fcs = 0, fds = 0;
  bool ferr = false;  // CR0.NE = 0: FERR# is up, an unmasked exception having been reported to IRQ 13
  bool operator==(const X87State&) const = default;
};

enum class Activity : u8 { running, halted, wait_for_sipi, shutdown };

struct BreakpointRegisters {
  u64 dr[4] = {};
  u64 dr6 = 0xffff0ff0;
  u64 dr7 = 0x400;
  bool operator==(const BreakpointRegisters&) const = default;
};

struct Msrs {
  u64 star = 0, lstar = 0, cstar = 0, fmask = 0, kernel_gs_base = 0;
  u64 sysenter_cs = 0, sysenter_esp = 0, sysenter_eip = 0;
  u64 pat = 0x0007040600070406, misc_enable = 1, tsc_adjust = 0, tsc_aux = 0, debugctl = 0, spec_ctrl = 0, xss = 0;
  u64 mtrr_def_type = 0, mtrr_fixed[11] = {}, mtrr_base[8] = {}, mtrr_mask[8] = {};
  u64 mcg_status = 0, mcg_ctl = 0, mc_ctl[4] = {}, mc_addr[4] = {}, mc_misc[4] = {}, feature_control = 1;
  u64 kvm_system_time = 0, kvm_wall_clock = 0, kvm_steal_time = 0;
  bool operator==(const Msrs&) const = default;
};

struct ArchState {
  alignas(64) u64 gpr[17] = {};  // [16] is always 0: "no register" in effective addresses
  u64 rip = 0;
  u64 scratch = 0;  // no state: the running engine's, an address that no register holds. 0 in a saved state
  // The arithmetic flags as LAHF; SETO AL leave them in AX: OF in bit 0, and SF ZF AF PF CF in bits 15, 14, 12, 10, 8.
  u16 arith = 0x0200;
  u8 cpl = 0;
  Activity activity = Activity::running;
  // RFLAGS without the arithmetic flags and without bit 1 (IF, DF, TF, IOPL, NT, RF, VM, AC, VIF, VIP, ID).
  u32 sys_flags = 0;
  // After STI, MOV SS, POP SS: no interrupt (and for SS no #DB) before the next instruction ends.
  bool interrupt_shadow = false;
  bool nmi_blocked = false;  // from NMI delivery to IRET
  // Taken from `attention` but not deliverable yet: interrupts_may_be_open() and IRET ask again (cpu/events.h).
  bool interrupt_waiting = false, nmi_waiting = false;
  bool unhalted = false;  // a paravirtual kick came while it was not halted: the next HLT is over at once
  // NMIs, INIT and SIPI that have not been taken yet: bits of channel::attention. In a saved state alone; a vCPU has
  // them in its attention word.
  u32 posted = 0;
  // Instructions retired. Engines may lag inside a block, but it is exact whenever anything outside the engine is
  // called (semantics, bus, clock) and on return from Engine::run.
  u64 retired = 0;
  Segment seg[6];  // by isa::Seg: ES CS SS DS FS GS

  u64 cr0 = 0x60000010, cr2 = 0, cr3 = 0, cr4 = 0, efer = 0, xcr0 = 1;
  u64 pdpte[4] = {};  // PAE: loaded by MOV CR3 (SDM 4.4.1)
  Segment ldtr, tr;
  TableRegister gdtr, idtr;
  BreakpointRegisters debug;
  Msrs msr;
  VectorState vec;
  X87State x87;

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
  bool long_mode_active() const { return efer >> 10 & 1; }  // EFER.LMA
  bool protected_mode() const { return cr0 & 1; }
  bool operator==(const ArchState&) const = default;
};

static_assert(std::is_trivially_copyable_v<ArchState>);

}  // namespace trapline::channel
