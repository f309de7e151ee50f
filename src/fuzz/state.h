// What a sequence starts from and what it leaves: registers, memory and the event that ended it. Both sides fill in the
// same structure; it lies in memory shared with the native child, so it is plain data.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "base/types.h"

namespace trapline::fuzz {

// The address space, the same for the host process and the guest. Everything else near by is unmapped.
namespace place {
inline constexpr u64 code = 0x10000000, data = 0x10100000, read_only = 0x10200000, stack = 0x10300000;
inline constexpr u64 data_size = 2 * kPageSize, read_only_size = kPageSize, stack_size = kPageSize;
inline constexpr u64 slot = 320;        // bytes of code per sequence; not a divisor of a page, so that some cross one
inline constexpr u64 segment = 0x4000;  // distance of the 64 KiB code segments that 16-bit code runs in
inline constexpr u64 batch = 256;       // sequences handed to the child at once
inline constexpr u64 code_size = (batch * slot + kPageSize - 1) / kPageSize * kPageSize;
inline constexpr u64 xsave = data + kPageSize;  // an area whose header is often one that XRSTOR takes
inline constexpr u64 gs_base = 0x40;            // small: a GS override shifts an address, it does not leave the window
}  // namespace place

struct Registers {
  u64 gpr[16];
  u64 rip, rflags;
  alignas(64) u8 zmm[32][64];
  u64 k[8];
  alignas(16) u8 x87[160];  // FXSAVE64 layout: control words, pointers, then eight 16-byte registers. MXCSR is apart
  u32 mxcsr;
};

// How a sequence ended. Its last instruction is INT3, so a whole run ends with vector 3.
struct Ending {
  enum class Kind : u8 { event, timeout, lost };  // lost: the process died
  Kind kind = Kind::event;
  u8 vector = 0;
  u32 error = 0;    // for the vectors that have one
  u64 address = 0;  // #PF: CR2
};

struct Memory {
  u8 data[place::data_size];
  u8 stack[place::stack_size];
};

struct Snapshot {
  Registers regs;
  Memory memory;
};

struct Outcome {
  Snapshot state;
  Ending ending;
};

// Which vector state the host has, and so which is compared.
struct Extent {
  bool avx = false, avx512 = false, intel = true;
  bool code32 = false, code16 = false;  // does its kernel let a process run such code?
  unsigned bits = 0;                    // of sequences' code; 0: all sizes that it runs
  // As the host's FXSAVE writes it; a guest's lacks the bits of features that it is not offered.
  u32 mxcsr_mask = 0xffff;
  static Extent of_host();
};

// What need not agree after a fault; lenient.h says when and why.
struct Lenient {
  bool mxcsr_flags = false;       // MXCSR exception flags
  bool x87 = false;               // all x87 and MMX state
  bool memory = false;            // memory: a store of several parts may be done in part
  bool page_address = false;      // CR2 but for its page
  bool alignment_vector = false;  // #AC or #GP(0)
  bool arithmetic_flags = false;  // OF, SF, ZF, AF, PF, CF
};

// Everything that differs, one line each; empty: equal.
std::vector<std::string> differences(const Outcome& native, const Outcome& engine, const Extent& extent,
                                     const Lenient& lenient);
// The cheap question, without leniency.
bool equal(const Outcome& native, const Outcome& engine, const Extent& extent);

std::string name_of(const Ending& ending);  // "#PF(0x7) at 0x10200000"
const char* name_of_gpr(unsigned number);   // 0 to 15

}  // namespace trapline::fuzz
