// The CPUID policy: the host's answers, filtered to what is truly virtualized (design, section 4), as a table made once per VM.
// Manual: Intel SDM Vol. 2A CPUID; AMD APM Vol. 3 appendix E. KVM leaves: Linux Documentation/virt/kvm/x86/cpuid.rst.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/types.h"

namespace trapline::cpu {

struct CpuidRegs {
  u32 eax = 0, ebx = 0, ecx = 0, edx = 0;
};

struct CpuidConfig {
  u32 cpus = 1;
  bool para_kvm = true;
  u64 tsc_khz = 0;
  std::string features;  // --cpu-features "+x,-y": Linux's /proc/cpuinfo names
};

class Cpuid {
 public:
  // Error: names the unknown feature, or the one that the host does not have.
  static Result<Cpuid, std::string> make(const CpuidConfig& config);

  // The answer for one vCPU. `xcr0`, `cr4` colour leaves 0xD and 1 (OSXSAVE).
  CpuidRegs query(u32 leaf, u32 subleaf, u32 apic_id, u64 xcr0, u64 xss, u64 cr4) const;

  // Derived facts the CPU core checks: bits a guest may set. Reserved-bit checks use these.
  u64 cr4_allowed() const { return cr4_allowed_; }
  u64 efer_allowed() const { return efer_allowed_; }
  u64 xcr0_allowed() const { return xcr0_allowed_; }
  u8 physical_bits() const { return physical_bits_; }
  bool has(std::string_view feature) const;  // by /proc/cpuinfo name, as the guest sees it
  bool intel() const { return intel_; }
  u32 mxcsr_mask() const { return mxcsr_mask_; }

 private:
  struct Entry {
    u32 leaf, subleaf;
    CpuidRegs regs;
  };
  std::vector<Entry> entries_;
  u64 cr4_allowed_ = 0, efer_allowed_ = 0, xcr0_allowed_ = 1;
  u8 physical_bits_ = 40;
  bool intel_ = true;
  u32 mxcsr_mask_ = 0xffff;
  CpuidConfig config_;
};

}  // namespace trapline::cpu
