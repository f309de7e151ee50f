// The vocabulary that prepare() and execute() share.
#pragma once

#include "base/types.h"
#include "cpu/vcpu.h"

namespace trapline::engine::vector {

enum class Kind : u8 {
  nothing,  // prefetches, fences' kin: no effect but the checks
  reg,      // no memory operand
  load,
  store,
  masked_load,  // EVEX with an opmask: elements that are masked off are not accessed
  masked_store,
  vmask_load,  // VMASKMOV, VPMASKMOV: sign bits of a vector register mask
  vmask_store,
  compress,  // packed store of the active elements
  expand,
  gather,
  scatter,
  mask_move,  // MASKMOVQ, MASKMOVDQU: bytes at rDI
};

namespace flag {
inline constexpr u8 mxcsr = 1;     // reads MXCSR's controls or sets its flags
inline constexpr u8 x87 = 2;       // works in the host's x87/MMX registers
inline constexpr u8 waits = 4;     // raises #MF for a pending unmasked x87 exception first
inline constexpr u8 pointers = 8;  // non-control x87: updates FIP, FOP, FDP
inline constexpr u8 evex = 16;
inline constexpr u8 fdp_on_exception_only = 32;  // CPUID.7:EBX[6]
inline constexpr u8 no_suppression = 64;         // masked store whose inactive elements fault as well
}  // namespace flag

// Thunks: u64 (cpu, memory). 0, or the cause that the signal handler left: in the low byte one of these, MXCSR in the
// upper half.
using Thunk = u64 (*)(cpu::Vcpu*, void*);
enum class Trap : u8 { none, fp_exception, illegal, protection };

}  // namespace trapline::engine::vector
