// RDMSR and WRMSR. Groups: time, system calls and segment bases, machine description, machine checks; memory types are in
// msr_memory_type.cpp, the local APIC's and the paravirtual ones elsewhere. Intel SDM Vol. 4 chapter 2; AMD APM Vol. 2 appendix A.
// What is not here does not exist: #GP(0). Kernels probe with a handler in place, and --trace=msr shows what they tried.
#include <optional>

#include "base/trace.h"
#include "cpu/lapic.h"
#include "cpu/mmu.h"
#include "cpu/msr_memory_type.h"
#include "cpu/para.h"
#include "cpu/semantics.h"

namespace trapline::cpu {

namespace {

enum Index : u32 {
  p5_mc_addr = 0x0, p5_mc_type = 0x1, tsc = 0x10, platform_id = 0x17, apic_base = 0x1b, ebl_cr_poweron = 0x2a, smi_count = 0x34,
  core_thread_count = 0x35, feature_control = 0x3a, tsc_adjust = 0x3b, spec_ctrl = 0x48, pred_cmd = 0x49, ucode_write = 0x79,
  ucode_rev = 0x8b, platform_info = 0xce, pkg_cst_config = 0xe2, arch_capabilities = 0x10a, flush_cmd = 0x10b, bbl_cr_ctl3 = 0x11e,
  sysenter_cs = 0x174, sysenter_esp = 0x175, sysenter_eip = 0x176, mcg_cap = 0x179, mcg_status = 0x17a, mcg_ctl = 0x17b,
  perf_status = 0x198, misc_enable = 0x1a0, debugctl = 0x1d9, last_branch_first = 0x1db, last_branch_last = 0x1de, power_ctl = 0x1fc,
  mc0_ctl = 0x400, tsc_deadline = 0x6e0, x2apic_first = 0x800, x2apic_last = 0x8ff, xss = 0xda0,
  efer_msr = 0xc0000080, star = 0xc0000081, lstar = 0xc0000082, cstar = 0xc0000083, fmask = 0xc0000084,
  fs_base = 0xc0000100, gs_base = 0xc0000101, kernel_gs_base = 0xc0000102, tsc_aux = 0xc0000103,
  amd_syscfg = 0xc0010010, amd_hwcr = 0xc0010015, amd_nb_cfg = 0xc001001f, amd_int_pending = 0xc0010055,
  amd_mmio_conf = 0xc0010058, amd_vm_cr = 0xc0010114, amd_ls_cfg = 0xc0011020, amd_ic_cfg = 0xc0011021,
  amd_dc_cfg = 0xc0011022, amd_bu_cfg = 0xc0011023, amd_de_cfg = 0xc0011029, amd_bu_cfg2 = 0xc001102a,
};

constexpr u32 kBanks = std::size(Msrs{}.mc_ctl);
constexpr u64 kMcgCap = kBanks | 1u << 8;  // MCG_CTL_P

bool canonical(u64 address) { return static_cast<u64>(static_cast<i64>(address << 16) >> 16) == address; }

bool store_canonical(u64& slot, u64 value) {
  if (!canonical(value)) return false;
  slot = value;
  return true;
}

bool write_segment_base(Vcpu& cpu, Seg which, u64 value) {
  if (!canonical(value)) return false;
  cpu.seg[static_cast<u8>(which)].base = value;
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

// -- The groups: nothing when the index is not theirs, else the answer of RDMSR or the success of WRMSR --------------------------

std::optional<u64> read_system(const Vcpu& cpu, u32 index) {
  const Msrs& m = cpu.msr;
  const bool lm = cpu.cpuid->has(Feature::lm), syscalls = cpu.cpuid->has(Feature::syscall);
  switch (index) {
    case sysenter_cs: return m.sysenter_cs;
    case sysenter_esp: return m.sysenter_esp;
    case sysenter_eip: return m.sysenter_eip;
    case efer_msr: return cpu.efer;
    case star: if (syscalls) return m.star; break;
    case lstar: if (lm) return m.lstar; break;
    case cstar: if (lm) return m.cstar; break;
    case fmask: if (lm) return m.fmask; break;
    case fs_base: if (lm) return cpu.seg[static_cast<u8>(Seg::fs)].base; break;
    case gs_base: if (lm) return cpu.seg[static_cast<u8>(Seg::gs)].base; break;
    case kernel_gs_base: if (lm) return m.kernel_gs_base; break;
    case xss: if (cpu.cpuid->has(Feature::xsaves)) return m.xss; break;
    case debugctl: return m.debugctl;
    default: break;
  }
  return std::nullopt;
}

std::optional<bool> write_system(Vcpu& cpu, u32 index, u64 value) {
  Msrs& m = cpu.msr;
  switch (index) {
    case sysenter_cs: m.sysenter_cs = value & 0xffffffff; return true;
    case sysenter_esp: return store_canonical(m.sysenter_esp, value);
    case sysenter_eip: return store_canonical(m.sysenter_eip, value);
    case efer_msr: return write_efer(cpu, value);
    // LBR, BTF and the trace bits have no effect here and read back as 0, as on a processor that lacks them.
    case debugctl: m.debugctl = 0; return (value & ~u64{0xffff}) == 0;
    default: break;
  }
  if (!read_system(cpu, index)) return std::nullopt;  // exists under the same conditions
  switch (index) {
    case star: m.star = value; return true;
    case lstar: return store_canonical(m.lstar, value);
    case cstar: return store_canonical(m.cstar, value);
    case fmask: m.fmask = value & 0xffffffff; return true;
    case fs_base: return write_segment_base(cpu, Seg::fs, value);
    case gs_base: return write_segment_base(cpu, Seg::gs, value);
    case kernel_gs_base: return store_canonical(m.kernel_gs_base, value);
    case xss:
      if (value & ~cpu.cpuid->xss_allowed()) return false;
      m.xss = value;
      return true;
    default: return std::nullopt;
  }
}

std::optional<u64> read_time(const Vcpu& cpu, u32 index) {
  switch (index) {
    case tsc: return cpu.tsc();
    case tsc_adjust: if (cpu.cpuid->has(Feature::tsc_adjust)) return cpu.msr.tsc_adjust; break;
    case tsc_aux: if (cpu.cpuid->has(Feature::rdtscp)) return cpu.msr.tsc_aux; break;
    default: break;
  }
  return std::nullopt;
}

std::optional<bool> write_time(Vcpu& cpu, u32 index, u64 value) {
  switch (index) {
    case tsc: return write_tsc_adjust(cpu, cpu.msr.tsc_adjust + value - cpu.tsc());
    case tsc_adjust: if (cpu.cpuid->has(Feature::tsc_adjust)) return write_tsc_adjust(cpu, value); break;
    case tsc_aux:
      if (!cpu.cpuid->has(Feature::rdtscp)) break;
      if (value >> 32) return false;
      cpu.msr.tsc_aux = value;
      return true;
    default: break;
  }
  return std::nullopt;
}

// Constants that describe the machine, and switches whose effect nothing can observe.
std::optional<u64> read_description(const Vcpu& cpu, u32 index) {
  switch (index) {
    case ucode_rev: return u64{0x7fffffff} << (cpu.cpuid->intel() ? 32 : 0);  // newer than any blacklisted revision
    case misc_enable: return cpu.msr.misc_enable | 1u << 11 | 1u << 12;       // no BTS, no PEBS
    case spec_ctrl: if (cpu.cpuid->has(Feature::spec_ctrl)) return cpu.msr.spec_ctrl; break;
    case arch_capabilities: if (cpu.cpuid->has(Feature::arch_capabilities)) return arch_cap::offered; break;
    case p5_mc_addr: case p5_mc_type: case ebl_cr_poweron: case smi_count: return 0;
    default: break;
  }
  if (!cpu.cpuid->intel()) return std::nullopt;
  const u64 mhz100 = cpu.cpuid->tsc_khz() / 100'000;
  switch (index) {
    case platform_id: case pkg_cst_config: case power_ctl: return 0;
    case core_thread_count: return u64{cpu.cpuid->cpus()} << 16 | cpu.cpuid->cpus();
    case feature_control: return cpu.msr.feature_control;  // locked, VMX off
    case platform_info: return (mhz100 & 0xff) << 8 | (mhz100 & 0xff) << 40;
    case perf_status: return (mhz100 & 0xff) << 8;
    case bbl_cr_ctl3: return 0xbe702111;  // Pentium III: level 2 cache present and enabled
    default: break;
  }
  if (index >= last_branch_first && index <= last_branch_last) return 0;
  return std::nullopt;
}

std::optional<bool> write_description(Vcpu& cpu, u32 index, u64 value) {
  switch (index) {
    case ucode_rev: case ucode_write: return true;  // kernels write 0 before they read; updates have nothing to update
    case misc_enable: cpu.msr.misc_enable = value & 1; return true;
    case p5_mc_addr: case p5_mc_type: case ebl_cr_poweron: return true;
    case spec_ctrl:
      if (!cpu.cpuid->has(Feature::spec_ctrl)) break;
      if (value & ~u64{7}) return false;
      cpu.msr.spec_ctrl = value;
      return true;
    // Barriers: what they would flush is the host's, and it does so when it switches tasks.
    case pred_cmd: if (cpu.cpuid->has(Feature::spec_ctrl)) return (value & ~u64{1}) == 0; break;
    case flush_cmd: if (cpu.cpuid->has(Feature::flush_l1d)) return (value & ~u64{1}) == 0; break;
    case pkg_cst_config: case power_ctl: case bbl_cr_ctl3: if (cpu.cpuid->intel()) return true; break;
    default: break;
  }
  return std::nullopt;
}

std::optional<u64> read_machine_check(const Vcpu& cpu, u32 index) {
  switch (index) {
    case mcg_cap: return kMcgCap;
    case mcg_status: return cpu.msr.mcg_status;
    case mcg_ctl: return cpu.msr.mcg_ctl;
    default: break;
  }
  if (index - mc0_ctl >= kBanks * 4) return std::nullopt;
  return index % 4 == 0 ? cpu.msr.mc_ctl[(index - mc0_ctl) / 4] : 0;  // STATUS, ADDR, MISC: nothing was ever logged
}

std::optional<bool> write_machine_check(Vcpu& cpu, u32 index, u64 value) {
  switch (index) {
    case mcg_status:
      if (value & ~u64{7}) return false;
      cpu.msr.mcg_status = value;
      return true;
    case mcg_ctl:
      if (value != 0 && value != ~u64{0}) return false;
      cpu.msr.mcg_ctl = value;
      return true;
    default: break;
  }
  if (index - mc0_ctl >= kBanks * 4) return std::nullopt;
  if (index % 4 == 0) {
    cpu.msr.mc_ctl[(index - mc0_ctl) / 4] = value;
    return true;
  }
  return value == 0;  // only clearing is legal (SDM Vol. 3B 15.3.2.2)
}

// AMD's configuration registers: errata switches that kernels read, change and write back. They hold nothing.
std::optional<u64> read_amd(u32 index) {
  switch (index) {
    case amd_hwcr: return 1u << 24;   // TscFreqSel: the TSC counts at the P0 frequency
    case amd_de_cfg: return 1u << 1;  // LFENCE serializes
    case amd_vm_cr: return 1u << 4 | 1u << 3;  // SVM disabled and locked
    case amd_syscfg: case amd_nb_cfg: case amd_int_pending: case amd_mmio_conf: case amd_ls_cfg: case amd_ic_cfg: case amd_dc_cfg:
    case amd_bu_cfg: case amd_bu_cfg2: return 0;
    default: return std::nullopt;
  }
}

}  // namespace

bool msr_read(Vcpu& cpu, u32 index, u64* value) {
  if (index == apic_base || (index >= x2apic_first && index <= x2apic_last)) return cpu.lapic && cpu.lapic->msr_read(index, value);
  if (index == tsc_deadline && cpu.cpuid->has(Feature::tsc_deadline_timer)) return cpu.lapic && cpu.lapic->msr_read(index, value);
  auto found = read_system(cpu, index);
  if (!found) found = read_time(cpu, index);
  if (!found) found = read_memory_type_msr(cpu, index);
  if (!found) found = read_description(cpu, index);
  if (!found) found = read_machine_check(cpu, index);
  if (!found && !cpu.cpuid->intel()) found = read_amd(index);
  if (!found) return cpu.para && cpu.para->msr_read(cpu, index, value);
  *value = *found;
  return true;
}

bool msr_write(Vcpu& cpu, u32 index, u64 value) {
  if (index == apic_base || (index >= x2apic_first && index <= x2apic_last)) return cpu.lapic && cpu.lapic->msr_write(index, value);
  if (index == tsc_deadline && cpu.cpuid->has(Feature::tsc_deadline_timer)) return cpu.lapic && cpu.lapic->msr_write(index, value);
  auto done = write_system(cpu, index, value);
  if (!done) done = write_time(cpu, index, value);
  if (!done) done = write_memory_type_msr(cpu, index, value);
  if (!done) done = write_description(cpu, index, value);
  if (!done) done = write_machine_check(cpu, index, value);
  if (!done && !cpu.cpuid->intel() && read_amd(index)) done = true;
  return done ? *done : cpu.para && cpu.para->msr_write(cpu, index, value);
}

namespace sem {

Outcome rdmsr(Vcpu& cpu, const isa::Insn&) {
  if (cpu.cpl != 0) return cpu.raise_gp();
  const u32 index = static_cast<u32>(cpu.gpr[isa::rcx]);
  u64 value = 0;
  const bool ok = msr_read(cpu, index, &value);
  TRACE(msr, "vcpu{} rdmsr {:#x} {}", cpu.index, index, ok ? fmt::format("-> {:#x}", value) : "#GP");
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
  TRACE(msr, "vcpu{} wrmsr {:#x} <- {:#x}{}", cpu.index, index, value, ok ? "" : " #GP");
  return ok ? Outcome::next : cpu.raise_gp();
}

}  // namespace sem

}  // namespace trapline::cpu
