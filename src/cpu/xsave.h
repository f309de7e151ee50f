// The XSAVE area: components, their places in the standard and the compacted format. Intel SDM Vol. 1 chapter 13.
#pragma once

#include "cpu/fpu_state.h"

namespace trapline::cpu::xsave {

enum Component : u8 { x87 = 0, sse = 1, avx = 2, opmask = 5, zmm_hi256 = 6, hi16_zmm = 7 };
inline constexpr Component kExtended[] = {avx, opmask, zmm_hi256, hi16_zmm};
constexpr u64 bit(Component c) { return u64{1} << c; }

inline constexpr u64 kCompacted = u64{1} << 63;  // in XCOMP_BV
inline constexpr unsigned kMxcsr = 24, kMxcsrMask = 28, kXmm = 160, kHeader = 512, kFirstExtended = 576;
inline constexpr unsigned kLargest = 1024;  // of the components above

struct Header {
  u64 xstate_bv, xcomp_bv;
  u64 reserved[6];
};
static_assert(sizeof(Header) == 64);

// Sizes and places from the host's CPUID leaf 0xD, which the guest is shown.
unsigned size_of(Component c);
unsigned standard_offset(Component c);
unsigned compacted_offset(Component c, u64 xcomp_bv);  // of a component in an area with these components
unsigned area_bytes(u64 components, bool compacted);   // up to the end of the last of these

// The registers of an extended component as its bytes in the area. Outside 64-bit mode only what the mode can name is
// copied: `present` bytes from the start.
unsigned present_bytes(const Vcpu& cpu, Component c);
void gather(const Vcpu& cpu, Component c, u8* out);
void scatter(Vcpu& cpu, Component c, const u8* in);  // null: initial values
bool differs(const Vcpu& cpu, Component c);          // from its initial configuration

}  // namespace trapline::cpu::xsave
