// Guest exceptions as values. Intel SDM Vol. 3A chapter 6 (vectors, error codes, classes).
#pragma once

#include "base/types.h"

namespace trapline::cpu {

enum class Vector : u8 {
  de = 0,
  db = 1,
  nmi = 2,
  bp = 3,
  of = 4,
  br = 5,
  ud = 6,
  nm = 7,
  df = 8,
  ts = 10,
  np = 11,
  ss = 12,
  gp = 13,
  pf = 14,
  mf = 16,
  ac = 17,
  mc = 18,
  xm = 19,
};

struct Fault {
  Vector vector = Vector::ud;
  u32 error = 0;  // pushed for the vectors that have one
  u64 cr2 = 0;    // #PF: the linear address
  u64 dr6 = 0;    // #DB: bits to set in DR6
};

// True for the vectors whose delivery pushes an error code.
constexpr bool has_error_code(Vector v) {
  switch (v) {
    case Vector::df:
    case Vector::ts:
    case Vector::np:
    case Vector::ss:
    case Vector::gp:
    case Vector::pf:
    case Vector::ac:
      return true;
    default:
      return false;
  }
}

// Page-fault error code bits (SDM Vol. 3A 4.7).
namespace pf_error {
inline constexpr u32 present = 1, write = 2, user = 4, reserved = 8, fetch = 16;
}

// What an instruction's semantics came to.
enum class [[nodiscard]] Outcome : u8{
    next,    // done; RIP is still that of the instruction: the caller advances it
    jumped,  // done; RIP has been set
    fault,   // nothing architectural has changed (or what the manual says may); cpu.fault says which. The caller
             // delivers it
    halt,    // HLT or MWAIT retired; RIP has been advanced past it
    stop,    // the vCPU loop must look (attention, shutdown, debugger); RIP is exact
    repeat,  // a REP instruction did a part: registers are exact, RIP still its own; run it again
};

}  // namespace trapline::cpu
