// The CPUID policy: the host's answers, filtered to what is truly virtualized (design, section 4), as a table made once
// per VM. Manual: Intel SDM Vol. 2A CPUID; AMD APM Vol. 3 appendix E. KVM leaves: Linux
// Documentation/virt/kvm/x86/cpuid.rst. Immutable after make(): any thread may query. What is offered and why:
// docs/cpu-model.md.
#pragma once

#include <array>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/types.h"
#include "isa/vendor.h"

namespace trapline::cpu {

struct CpuidRegs {
  u32 eax = 0, ebx = 0, ecx = 0, edx = 0;
};

struct CpuidConfig {
  u32 cpus = 1;
  bool para_kvm = true, para_xen = false;
  u64 tsc_khz = 0;
  std::string features = {};  // --cpu-features "+x,-y": Linux's /proc/cpuinfo names
  bool para_steal = false;    // with para_kvm: steal time, which follows the host's clock
};

// The registers that hold feature bits: l1_edx is leaf 1's EDX, e1 stands for 80000001H.
enum class FeatureWord : u8 {
  l1_edx,
  l1_ecx,
  l6_eax,
  l7_ebx,
  l7_ecx,
  l7_edx,
  l7_1_eax,
  l7_2_edx,
  ld_1_eax,
  e1_ecx,
  e1_edx,
  e7_edx,
  e8_ebx,
  e21_eax,
  e21_ecx,
  count,
};

enum class Feature : u8 {
#define FEATURE(id, name, word, bit, source, needs) id,
#include "cpu/cpuid_features.inc"
#undef FEATURE
  none,
};

struct FeatureBit {
  FeatureWord word;
  u8 bit;
};
inline constexpr FeatureBit kFeatureBits[] = {
#define FEATURE(id, name, word, bit, source, needs) {FeatureWord::word, bit},
#include "cpu/cpuid_features.inc"
#undef FEATURE
};

// What the host's CPU says of itself; tests give their own.
struct HostCpu {
  std::function<CpuidRegs(u32 leaf, u32 subleaf)> cpuid;
  u64 xcr0 = 3;
  u32 mxcsr_mask = 0xffbf;
  static HostCpu real();
};

// An XSAVE component beyond x87 and SSE: its place in the standard format. The compacted format packs those in use
// behind byte 576.
struct XsaveComponent {
  u32 number, size, offset;
  bool align64 = false;
};

class Cpuid {
 public:
  // Error: names the unknown feature, or the one that the host does not have.
  static Result<Cpuid, std::string> make(const CpuidConfig& config) { return make(config, HostCpu::real()); }
  static Result<Cpuid, std::string> make(const CpuidConfig& config, const HostCpu& host);

  // The answer for one vCPU. `xcr0`, `cr4` colour leaves 0xD and 1 (OSXSAVE).
  CpuidRegs query(u32 leaf, u32 subleaf, u32 apic_id, u64 xcr0, u64 xss, u64 cr4) const;

  bool has_subleaves(u32 leaf) const;  // may its answer depend on ECX?

  // Derived facts the CPU core checks: bits a guest may set. Reserved-bit checks use these.
  u64 cr4_allowed() const { return cr4_allowed_; }
  u64 efer_allowed() const { return efer_allowed_; }
  u64 xcr0_allowed() const { return xcr0_allowed_; }
  u64 xss_allowed() const { return 0; }
  u8 physical_bits() const { return physical_bits_; }
  bool has(std::string_view feature) const;  // by /proc/cpuinfo name, as the guest sees it; slow
  bool has(Feature feature) const {
    const FeatureBit f = kFeatureBits[static_cast<u8>(feature)];
    return words_[static_cast<u8>(f.word)] >> f.bit & 1;
  }
  isa::Vendor vendor() const { return intel_ ? isa::Vendor::intel : isa::Vendor::amd; }
  bool intel() const { return intel_; }
  u8 family() const { return family_; }  // with the extended family added
  u32 cpus() const { return config_.cpus; }
  u64 tsc_khz() const { return config_.tsc_khz; }
  u32 mxcsr_mask() const { return mxcsr_mask_; }

 private:
  struct Entry {
    u32 leaf, subleaf;
    CpuidRegs regs;
  };
  using Words = std::array<u32, static_cast<u8>(FeatureWord::count)>;

  // cpuid_features.cpp
  Result<void, std::string> choose_features(const HostCpu& host);
  void derive_register_bits();
  // cpuid.cpp
  void build_leaves(const HostCpu& host);
  void build_basic(const HostCpu& host);
  void build_caches(const HostCpu& host);
  void build_extended(const HostCpu& host);
  void build_kvm();
  void build_xen();
  void build_xsave(const HostCpu& host);
  void add(u32 leaf, u32 subleaf, CpuidRegs regs);
  CpuidRegs topology(u32 subleaf, u32 apic_id) const;
  CpuidRegs xsave(u32 subleaf, u64 xcr0, u64 xss) const;
  u32 word(FeatureWord w) const { return words_[static_cast<u8>(w)]; }

  std::vector<Entry> entries_;
  Words words_{};
  u32 max_basic_ = 0, max_extended_ = 0;
  u64 cr4_allowed_ = 0, efer_allowed_ = 0, xcr0_allowed_ = 1;
  u8 physical_bits_ = 40;
  bool intel_ = true;
  u8 family_ = 0;
  u32 mxcsr_mask_ = 0xffff;
  // Sizes are the architecture's; places are Intel's unless the host has others (AMD's do not leave MPX's gap), as
  // xsave_layout.cpp does.
  std::array<XsaveComponent, 4> xsave_components_ = {{{2, 256, 576}, {5, 64, 1088}, {6, 512, 1152}, {7, 1024, 1664}}};
  CpuidConfig config_;
};

// IA32_ARCH_CAPABILITIES: what the guest need not defend against. Speculation across the guest's own boundaries is
// real, but its defences sit in the host: a mitigation in emulated kernel code would cost and protect nothing (design,
// section 4).
namespace arch_cap {
inline constexpr u64 rdcl_no = 1, ibrs_all = 2, skip_l1dfl = 1u << 3, ssb_no = 1u << 4, mds_no = 1u << 5,
                     pschange_mc_no = 1u << 6, taa_no = 1u << 8, sbdr_no = 1u << 13, fbsdp_no = 1u << 14,
                     psdp_no = 1u << 15, bhi_no = 1u << 20, pbrsb_no = 1u << 24, gds_no = 1u << 26, rfds_no = 1u << 27,
                     its_no = u64{1} << 62;
inline constexpr u64 offered = rdcl_no | ibrs_all | skip_l1dfl | ssb_no | mds_no | pschange_mc_no | taa_no | sbdr_no |
                               fbsdp_no | psdp_no | bhi_no | pbrsb_no | gds_no | rfds_no | its_no;
}  // namespace arch_cap

}  // namespace trapline::cpu
