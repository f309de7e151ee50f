// CPU features that a PV guest is not offered: a kernel at CPL 3 cannot use them, or Xen does not let it. Xen's own list
// is that of features marked S and H, for HVM guests alone (xen/arch-x86/cpufeatureset.h).
#pragma once

#include <string_view>

namespace trapline::para::xen {

// As for --cpu-features.
inline constexpr std::string_view kHiddenFeatures =
    "-smep,-smap,-pcid,-invpcid,-umip,-pse,-pse36,-pge,-mtrr,-x2apic,-tsc_deadline_timer,-apic,-arat,-pdpe1gb,-tsc_"
    "adjust,-xsaves,-flush_l1d";

}  // namespace trapline::para::xen
