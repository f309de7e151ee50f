// CPUID policies of either vendor on any host: the host's own answers under the other's name. What an instruction
// leaves to the processor then follows the policy, but for what the host's own instruction decides.
#pragma once

#include <ostream>
#include <string>

#include "cpu/cpuid.h"

namespace trapline::isa {

inline void PrintTo(Vendor vendor, std::ostream* out) { *out << (vendor == Vendor::intel ? "intel" : "amd"); }

}  // namespace trapline::isa

namespace trapline::test {

inline constexpr isa::Vendor kVendors[] = {isa::Vendor::intel, isa::Vendor::amd};

inline const char* name_of(isa::Vendor vendor) { return vendor == isa::Vendor::intel ? "intel" : "amd"; }

inline cpu::HostCpu host_as(isa::Vendor vendor) {
  cpu::HostCpu host = cpu::HostCpu::real();
  host.cpuid = [real = host.cpuid, vendor](u32 leaf, u32 subleaf) {
    cpu::CpuidRegs r = real(leaf, subleaf);
    if (leaf != 0 && leaf != 0x80000000) return r;
    if (vendor == isa::Vendor::intel)
      r.ebx = 0x756e6547, r.edx = 0x49656e69, r.ecx = 0x6c65746e;  // GenuineIntel
    else
      r.ebx = 0x68747541, r.edx = 0x69746e65, r.ecx = 0x444d4163;  // AuthenticAMD
    return r;
  };
  return host;
}

inline cpu::Cpuid policy_of(isa::Vendor vendor, cpu::CpuidConfig config = {}) {
  return std::move(*cpu::Cpuid::make(config, host_as(vendor)));
}

}  // namespace trapline::test
