// RDMSR and WRMSR; the registers of the CPU core and of time. Others: msr_machine.cpp, msr_memory_type.cpp,
// lapic_registers.cpp, para/. Intel SDM Vol. 4 chapter 2; AMD APM Vol. 2 appendix A. What is not here does not exist:
// #GP(0). Kernels probe with a handler in place, and --trace=msr shows what they tried.
#include <optional>

#include "base/trace.h"
#include "cpu/lapic.h"
#include "cpu/mmu.h"
#include "cpu/msr_machine.h"
#include "cpu/msr_memory_type.h"
#include "cpu/para.h"
#include "cpu/semantics.h"

namespace trapline::cpu {

namespace {

enum Index : u32 {
  tsc = 0x10,
  apic_base = 0x1b,
  tsc_adjust = 0x3b,
  sysenter_cs = 0x174,
  sysenter_esp = 0x175,
  sysenter_eip = 0x176,
  debugctl = 0x1d9,
  tsc_deadline = 0x6e0,
  x2apic_first = 0x800,
  x2apic_last = 0x8ff,
  xss = 0xda0,
  efer_msr = 0xc0000080,
  star = 0xc0000081,
  lstar = 0xc0000082,
  cstar = 0xc0000083,
  fmask = 0xc0000084,
  fs_base = 0xc0000100,
  gs_base = 0xc0000101,
  kernel_gs_base = 0xc0000102,
  tsc_aux = 0xc0000103,
};

bool canonical(u64 address) { return static_cast<u64>(static_cast<i64>(address << 16) >> 16) == address; }

bool store_canonical(u64& slot, u64 value) {
  if (!canonical(value)) return false;
  slot = value;
  return true;
}

bool write_segment_base(Vcpu& cpu, Seg which, u64 value) {
  if (!canonical(value)) return false;
  cpu.segment(which).base = value;
  update_mode(cpu);
  return true;
}

bool write_efer(Vcpu& cpu, u64 value) {
  if (value & ~cpu.cpuid->efer_allowed()) return false;
  if ((cpu.efer ^ value) & efer::lme && cpu.cr0 & cr0::pg) return false;
  const u64 updated = (value & ~efer::lma) | (cpu.efer & efer::lma);  // LMA is the processor's
  const bool nx_changed = (updated ^ cpu.efer) & efer::nxe;
  cpu.efer = updated;
  update_mode(cpu);
  if (nx_changed) tlb_flush_all(cpu);
  return true;
}

// TSC_ADJUST moves with every write of the TSC (SDM Vol. 3B 17.17.3), and the other way round.
bool write_tsc_adjust(Vcpu& cpu, u64 value) {
  cpu.msr.tsc_adjust = value;
  if (cpu.lapic) cpu.lapic->tsc_adjusted();
  if (cpu.para) cpu.para->tsc_adjusted(cpu);
  return true;
}

// -- The groups: nothing when the index is not theirs, else the answer of RDMSR or the success of WRMSR

std::optional<u64> read_system(const Vcpu& cpu, u32 index) {
  const Msrs& m = cpu.msr;
  const bool lm = cpu.cpuid->has(Feature::lm), syscalls = cpu.cpuid->has(Feature::syscall);
  switch (index) {
    case sysenter_cs:
      return m.sysenter_cs;
    case sysenter_esp:
      return m.sysenter_esp;
    case sysenter_eip:
      return m.sysenter_eip;
    case efer_msr:
      return cpu.efer;
    case star:
      if (syscalls) return m.star;
      break;
    case lstar:
      if (lm) return m.lstar;
      break;
    case cstar:
      if (lm) return m.cstar;
      break;
    case fmask:
      if (lm) return m.fmask;
      break;
    case fs_base:
      if (lm) return cpu.segment(Seg::fs).base;
      break;
    case gs_base:
      if (lm) return cpu.segment(Seg::gs).base;
      break;
    case kernel_gs_base:
      if (lm) return m.kernel_gs_base;
      break;
    case xss:
      if (cpu.cpuid->has(Feature::xsaves)) return m.xss;
      break;
    case debugctl:
      return m.debugctl;
    default:
      break;
  }
  return std::nullopt;
}

std::optional<bool> write_system(Vcpu& cpu, u32 index, u64 value) {
  Msrs& m = cpu.msr;
  switch (index) {
    case sysenter_cs:
      m.sysenter_cs = value & 0xffffffff;
      return true;
    case sysenter_esp:
      return store_canonical(m.sysenter_esp, value);
    case sysenter_eip:
      return store_canonical(m.sysenter_eip, value);
    case efer_msr:
      return write_efer(cpu, value);
    // LBR, BTF and the trace bits have no effect here and read back as 0, as on a processor that lacks them.
    case debugctl:
      m.debugctl = 0;
      return (value & ~u64{0xffff}) == 0;
    default:
      break;
  }
  if (!read_system(cpu, index)) return std::nullopt;  // exists under the same conditions
  switch (index) {
    case star:
      m.star = value;
      return true;
    case lstar:
      return store_canonical(m.lstar, value);
    case cstar:
      return store_canonical(m.cstar, value);
    case fmask:
      m.fmask = value & 0xffffffff;
      return true;
    case fs_base:
      return write_segment_base(cpu, Seg::fs, value);
    case gs_base:
      return write_segment_base(cpu, Seg::gs, value);
    case kernel_gs_base:
      return store_canonical(m.kernel_gs_base, value);
    case xss:
      if (value & ~cpu.cpuid->xss_allowed()) return false;
      m.xss = value;
      return true;
    default:
      return std::nullopt;
  }
}

std::optional<u64> read_time(const Vcpu& cpu, u32 index) {
  switch (index) {
    case tsc:
      return cpu.tsc();
    case tsc_adjust:
      if (cpu.cpuid->has(Feature::tsc_adjust)) return cpu.msr.tsc_adjust;
      break;
    case tsc_aux:
      if (cpu.cpuid->has(Feature::rdtscp)) return cpu.msr.tsc_aux;
      break;
    default:
      break;
  }
  return std::nullopt;
}

std::optional<bool> write_time(Vcpu& cpu, u32 index, u64 value) {
  switch (index) {
    case tsc:
      return write_tsc_adjust(cpu, cpu.msr.tsc_adjust + value - cpu.tsc());
    case tsc_adjust:
      if (cpu.cpuid->has(Feature::tsc_adjust)) return write_tsc_adjust(cpu, value);
      break;
    case tsc_aux:
      if (!cpu.cpuid->has(Feature::rdtscp)) break;
      if (value >> 32) return false;
      cpu.msr.tsc_aux = value;
      return true;
    default:
      break;
  }
  return std::nullopt;
}

}  // namespace

bool msr_read(Vcpu& cpu, u32 index, u64* value) {
  if (index == apic_base || (index >= x2apic_first && index <= x2apic_last))
    return cpu.lapic && cpu.lapic->msr_read(index, value);
  if (index == tsc_deadline && cpu.cpuid->has(Feature::tsc_deadline_timer))
    return cpu.lapic && cpu.lapic->msr_read(index, value);
  auto found = read_system(cpu, index);
  if (!found) found = read_time(cpu, index);
  if (!found) found = read_memory_type_msr(cpu, index);
  if (!found) found = read_machine_msr(cpu, index);
  if (!found) return cpu.para && cpu.para->msr_read(cpu, index, value);
  *value = *found;
  return true;
}

bool msr_write(Vcpu& cpu, u32 index, u64 value) {
  if (index == apic_base || (index >= x2apic_first && index <= x2apic_last))
    return cpu.lapic && cpu.lapic->msr_write(index, value);
  if (index == tsc_deadline && cpu.cpuid->has(Feature::tsc_deadline_timer))
    return cpu.lapic && cpu.lapic->msr_write(index, value);
  auto done = write_system(cpu, index, value);
  if (!done) done = write_time(cpu, index, value);
  if (!done) done = write_memory_type_msr(cpu, index, value);
  if (!done) done = write_machine_msr(cpu, index, value);
  return done ? *done : cpu.para && cpu.para->msr_write(cpu, index, value);
}

namespace sem {

Outcome rdmsr(Vcpu& cpu, const isa::Insn&) {
  if (cpu.cpl != 0) return cpu.raise_gp();
  const u32 index = static_cast<u32>(cpu.gpr[isa::rcx]);
  u64 value = 0;
  const bool ok = msr_read(cpu, index, &value);
  TRACE(msr, "rdmsr {:#x} {}", index, ok ? fmt::format("-> {:#x}", value) : "#GP");
  if (!ok) return cpu.raise_gp();
  cpu.gpr[isa::rax] = value & 0xffffffff;
  cpu.gpr[isa::rdx] = value >> 32;
  return Outcome::next;
}

Outcome wrmsr(Vcpu& cpu, const isa::Insn&) {
  if (cpu.cpl != 0) return cpu.raise_gp();
  const u32 index = static_cast<u32>(cpu.gpr[isa::rcx]);
  const u64 value = (cpu.gpr[isa::rdx] & 0xffffffff) << 32 | (cpu.gpr[isa::rax] & 0xffffffff);
  const bool ok = msr_write(cpu, index, value);
  TRACE(msr, "wrmsr {:#x} <- {:#x}{}", index, value, ok ? "" : " #GP");
  return ok ? Outcome::next : cpu.raise_gp();
}

}  // namespace sem

}  // namespace trapline::cpu
