// Intel SDM Vol. 4 chapter 2; machine checks: Vol. 3B chapter 15; AMD APM Vol. 2 appendix A.
#include "cpu/msr_machine.h"

namespace trapline::cpu {

namespace {

enum Index : u32 {
  p5_mc_addr = 0x0,
  p5_mc_type = 0x1,
  platform_id = 0x17,
  ebl_cr_poweron = 0x2a,
  smi_count = 0x34,
  core_thread_count = 0x35,
  feature_control = 0x3a,
  spec_ctrl = 0x48,
  pred_cmd = 0x49,
  ucode_write = 0x79,
  ucode_rev = 0x8b,
  platform_info = 0xce,
  pkg_cst_config = 0xe2,
  arch_capabilities = 0x10a,
  flush_cmd = 0x10b,
  bbl_cr_ctl3 = 0x11e,
  mcg_cap = 0x179,
  mcg_status = 0x17a,
  mcg_ctl = 0x17b,
  perf_status = 0x198,
  misc_enable = 0x1a0,
  last_branch_first = 0x1db,
  last_branch_last = 0x1de,
  power_ctl = 0x1fc,
  mc0_ctl = 0x400,
  amd_perf_first = 0xc0010000,  // PERF_CTL0..3, PERF_CTR0..3
  amd_perf_last = 0xc0010007,
  amd_syscfg = 0xc0010010,
  amd_hwcr = 0xc0010015,
  amd_nb_cfg = 0xc001001f,
  amd_int_pending = 0xc0010055,
  amd_mmio_conf = 0xc0010058,
  amd_vm_cr = 0xc0010114,
  amd_osvw_id_length = 0xc0010140,
  amd_osvw_status = 0xc0010141,
  amd_ls_cfg = 0xc0011020,
  amd_ic_cfg = 0xc0011021,
  amd_dc_cfg = 0xc0011022,
  amd_bu_cfg = 0xc0011023,
  amd_de_cfg = 0xc0011029,
  amd_bu_cfg2 = 0xc001102a,
  amd_bp_cfg = 0xc001102e,
};

constexpr u32 kBanks = std::size(Msrs{}.mc_ctl);
constexpr u64 kMcgCap = kBanks | 1u << 8;  // MCG_CTL_P

constexpr unsigned kBhiDisS = 10;  // of SPEC_CTRL

// Constants that describe the machine, and switches whose effect nothing can observe.
std::optional<u64> read_description(const Vcpu& cpu, u32 index) {
  switch (index) {
    case ucode_rev:
      return u64{0x7fffffff} << (cpu.cpuid->intel() ? 32 : 0);  // newer than any blacklisted revision
    case misc_enable:
      return cpu.msr.misc_enable | 1u << 11 | 1u << 12;  // no BTS, no PEBS
    case spec_ctrl:
      if (cpu.cpuid->has(Feature::spec_ctrl)) return cpu.msr.spec_ctrl;
      break;
    case arch_capabilities:
      if (cpu.cpuid->has(Feature::arch_capabilities)) return arch_cap::offered;
      break;
    case p5_mc_addr:
    case p5_mc_type:
    case ebl_cr_poweron:
    case smi_count:
      return 0;
    default:
      break;
  }
  if (!cpu.cpuid->intel()) return std::nullopt;
  const u64 mhz100 = cpu.cpuid->tsc_khz() / 100'000;
  switch (index) {
    case platform_id:
    case pkg_cst_config:
    case power_ctl:
      return 0;
    case core_thread_count:
      return u64{cpu.cpuid->cpus()} << 16 | cpu.cpuid->cpus();
    case feature_control:
      return cpu.msr.feature_control;  // locked, VMX off
    case platform_info:
      return (mhz100 & 0xff) << 8 | (mhz100 & 0xff) << 40;
    case perf_status:
      return (mhz100 & 0xff) << 8;
    case bbl_cr_ctl3:
      return 0xbe702111;  // Pentium III: level 2 cache present and enabled
    default:
      break;
  }
  if (index >= last_branch_first && index <= last_branch_last) return 0;
  return std::nullopt;
}

std::optional<bool> write_description(Vcpu& cpu, u32 index, u64 value) {
  switch (index) {
    case ucode_rev:
    case ucode_write:
      return true;  // kernels write 0 before they read; updates have nothing to update
    case misc_enable:
      cpu.msr.misc_enable = value & 1;
      return true;
    case p5_mc_addr:
    case p5_mc_type:
    case ebl_cr_poweron:
      return true;
    case spec_ctrl:
      if (!cpu.cpuid->has(Feature::spec_ctrl)) break;
      if (value & ~(u64{7} | u64{cpu.cpuid->has(Feature::bhi_ctrl)} << kBhiDisS)) return false;
      cpu.msr.spec_ctrl = value;
      return true;
    // Barriers: what they would flush is the host's, and it does so when it switches tasks.
    case pred_cmd:
      if (cpu.cpuid->has(Feature::spec_ctrl)) return (value & ~u64{1}) == 0;
      break;
    case flush_cmd:
      if (cpu.cpuid->has(Feature::flush_l1d)) return (value & ~u64{1}) == 0;
      break;
    case pkg_cst_config:
    case power_ctl:
    case bbl_cr_ctl3:
      if (cpu.cpuid->intel()) return true;
      break;
    default:
      break;
  }
  return std::nullopt;
}

std::optional<u64> read_machine_check(const Vcpu& cpu, u32 index) {
  switch (index) {
    case mcg_cap:
      return kMcgCap;
    case mcg_status:
      return cpu.msr.mcg_status;
    case mcg_ctl:
      return cpu.msr.mcg_ctl;
    default:
      break;
  }
  if (index - mc0_ctl >= kBanks * 4) return std::nullopt;
  const u32 bank = (index - mc0_ctl) / 4;
  const u64 values[4] = {cpu.msr.mc_ctl[bank], 0, cpu.msr.mc_addr[bank], cpu.msr.mc_misc[bank]};
  return values[index % 4];  // STATUS: nothing was ever logged
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
    default:
      break;
  }
  if (index - mc0_ctl >= kBanks * 4) return std::nullopt;
  const u32 bank = (index - mc0_ctl) / 4, which = index % 4;
  if (which == 0) {
    cpu.msr.mc_ctl[bank] = value;
    return true;
  }
  // Only clearing is legal (SDM Vol. 3B 15.3.2.2 to 15.3.2.4); AMD's ADDR and MISC hold what is written (APM Vol.
  // 2 9.3.2).
  if (which == 1 || cpu.cpuid->intel()) return value == 0;
  (which == 2 ? cpu.msr.mc_addr : cpu.msr.mc_misc)[bank] = value;
  return true;
}

// AMD's configuration registers: errata switches that kernels read, change and write back. They hold nothing.
std::optional<u64> read_amd(const Vcpu& cpu, u32 index) {
  // The counters that every AMD processor has, CPUID or not (APM Vol. 2 13.2.1): here they count nothing.
  if (index >= amd_perf_first && index <= amd_perf_last) return 0;
  switch (index) {
    case amd_osvw_id_length:  // no erratum needs a workaround of the system's (APM Vol. 2, appendix A: OSVW)
    case amd_osvw_status:
      if (cpu.cpuid->has(Feature::osvw)) return 0;
      return std::nullopt;
    case amd_hwcr:
      return 1u << 24;  // TscFreqSel: the TSC counts at the P0 frequency
    case amd_de_cfg:
      return 1u << 1;  // LFENCE serializes
    case amd_vm_cr:
      return 1u << 4 | 1u << 3;  // SVM disabled and locked
    case amd_syscfg:
    case amd_nb_cfg:
    case amd_int_pending:
    case amd_mmio_conf:
    case amd_ls_cfg:
    case amd_ic_cfg:
    case amd_dc_cfg:
    case amd_bu_cfg:
    case amd_bu_cfg2:
    case amd_bp_cfg:
      return 0;
    default:
      return std::nullopt;
  }
}

}  // namespace

std::optional<u64> read_machine_msr(const Vcpu& cpu, u32 index) {
  auto found = read_description(cpu, index);
  if (!found) found = read_machine_check(cpu, index);
  if (!found && !cpu.cpuid->intel()) found = read_amd(cpu, index);
  return found;
}

std::optional<bool> write_machine_msr(Vcpu& cpu, u32 index, u64 value) {
  auto done = write_description(cpu, index, value);
  if (!done) done = write_machine_check(cpu, index, value);
  if (!done && !cpu.cpuid->intel() && read_amd(cpu, index)) done = true;
  return done;
}

}  // namespace trapline::cpu
