// Whose manual decides where the two differ: decoding (docs/cpu-model.md), flags and orders that one of them leaves
// undefined, MSRs. A VM's is that of its CPUID policy, which is the host's: what runs on the host behaves as its CPU
// does.
#pragma once

#include "base/types.h"

namespace trapline::isa {

enum class Vendor : u8 { intel, amd };

// By CPUID leaf 0: AuthenticAMD and HygonGenuine are amd, all else is intel.
constexpr Vendor vendor_of_name(u32 ebx) {
  return ebx == 0x68747541 /* Auth */ || ebx == 0x6f677948 /* Hygo */ ? Vendor::amd : Vendor::intel;
}

// Of the CPU that this runs on. Asked once: CPUID costs microseconds on a virtual host.
Vendor host_vendor();

}  // namespace trapline::isa
