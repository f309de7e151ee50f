// Arithmetic with the host's own flags: each operation runs as the same host instruction, and LAHF; SETO AL take the
// result in the form of Vcpu::arith. So undefined flags are the host's too.
//
// An operation is a struct with apply<T>(f, a, b): returns the new destination, f is in/out.
#pragma once

#include "base/types.h"

namespace trapline::engine::semantics {

#define TRAPLINE_SAVE_FLAGS "\n\tlahf\n\tseto %%al"
// AL holds OF in bit 0: adding 0x7f overflows exactly when it is set. SAHF sets the others.
#define TRAPLINE_LOAD_FLAGS "addb $0x7f, %%al\n\tsahf\n\t"

struct Operation {
  static constexpr bool writes = true;  // the destination
  static constexpr bool flags = true;   // the arithmetic flags
  static constexpr bool reads = false;  // depends on the old flags, or keeps some of them
  static constexpr bool lockable = true;
};

#define TRAPLINE_PLAIN_ALU(Name, text, does_write)                                              \
  struct Name : Operation {                                                                     \
    static constexpr bool writes = does_write;                                                  \
    template <class T>                                                                          \
    static T apply(u16& f, T a, T b) {                                                          \
      u16 ax;                                                                                   \
      asm(text " %[b], %[a]" TRAPLINE_SAVE_FLAGS : [a] "+r"(a), "=&a"(ax) : [b] "r"(b) : "cc"); \
      f = ax;                                                                                   \
      return a;                                                                                 \
    }                                                                                           \
  };
TRAPLINE_PLAIN_ALU(Add, "add", true)
TRAPLINE_PLAIN_ALU(Sub, "sub", true)
TRAPLINE_PLAIN_ALU(And, "and", true)
TRAPLINE_PLAIN_ALU(Or, "or", true)
TRAPLINE_PLAIN_ALU(Xor, "xor", true)
TRAPLINE_PLAIN_ALU(Cmp, "cmp", false)
TRAPLINE_PLAIN_ALU(Test, "test", false)

// These take the carry in (bit 8 of f).
#define TRAPLINE_CARRY_ALU(Name, text)                                                                 \
  struct Name : Operation {                                                                            \
    static constexpr bool reads = true;                                                                \
    template <class T>                                                                                 \
    static T apply(u16& f, T a, T b) {                                                                 \
      asm("bt $8, %[f]\n\t" text TRAPLINE_SAVE_FLAGS : [a] "+r"(a), [f] "+&a"(f) : [b] "r"(b) : "cc"); \
      return a;                                                                                        \
    }                                                                                                  \
  };
TRAPLINE_CARRY_ALU(Adc, "adc %[b], %[a]")
TRAPLINE_CARRY_ALU(Sbb, "sbb %[b], %[a]")
TRAPLINE_CARRY_ALU(Inc, "inc %[a]")  // keeps CF
TRAPLINE_CARRY_ALU(Dec, "dec %[a]")

struct Neg : Operation {
  template <class T>
  static T apply(u16& f, T a, T) {
    u16 ax;
    asm("neg %[a]" TRAPLINE_SAVE_FLAGS : [a] "+r"(a), "=&a"(ax) : : "cc");
    f = ax;
    return a;
  }
};
struct Not : Operation {
  static constexpr bool flags = false;
  template <class T>
  static T apply(u16&, T a, T) {
    return static_cast<T>(~a);
  }
};
struct Mov : Operation {
  static constexpr bool flags = false, lockable = false;
  template <class T>
  static T apply(u16&, T, T b) {
    return b;
  }
};

// Shifts and rotates: a masked count of 0 changes no flag. Shifts set all others from their operands alone.
#define TRAPLINE_SHIFT(Name, load, text)                                                             \
  struct Name : Operation {                                                                          \
    static constexpr bool reads = true, lockable = false;                                            \
    template <class T>                                                                               \
    static T apply(u16& f, T a, T b) {                                                               \
      const u8 count = static_cast<u8>(b) & (sizeof(T) == 8 ? 63 : 31);                              \
      if (count == 0) return a;                                                                      \
      asm(load text " %%cl, %[a]" TRAPLINE_SAVE_FLAGS : [a] "+&r"(a), "+&a"(f) : "c"(count) : "cc"); \
      return a;                                                                                      \
    }                                                                                                \
  };
TRAPLINE_SHIFT(Shl, "", "shl")
TRAPLINE_SHIFT(Shr, "", "shr")
TRAPLINE_SHIFT(Sar, "", "sar")
TRAPLINE_SHIFT(Rol, TRAPLINE_LOAD_FLAGS, "rol")
TRAPLINE_SHIFT(Ror, TRAPLINE_LOAD_FLAGS, "ror")
TRAPLINE_SHIFT(Rcl, TRAPLINE_LOAD_FLAGS, "rcl")
TRAPLINE_SHIFT(Rcr, TRAPLINE_LOAD_FLAGS, "rcr")

// Operations that leave some flags alone (or undefined): the old ones go in first.
#define TRAPLINE_KEEPING_ALU(Name, text, does_write)                                                                \
  struct Name : Operation {                                                                                         \
    static constexpr bool reads = true, writes = does_write;                                                        \
    template <class T>                                                                                              \
    static T apply(u16& f, T a, T b) {                                                                              \
      asm(TRAPLINE_LOAD_FLAGS text " %[b], %[a]" TRAPLINE_SAVE_FLAGS : [a] "+&r"(a), "+&a"(f) : [b] "r"(b) : "cc"); \
      return a;                                                                                                     \
    }                                                                                                               \
  };
TRAPLINE_KEEPING_ALU(Bt, "bt", false)
TRAPLINE_KEEPING_ALU(Bts, "bts", true)
TRAPLINE_KEEPING_ALU(Btr, "btr", true)
TRAPLINE_KEEPING_ALU(Btc, "btc", true)
TRAPLINE_KEEPING_ALU(Imul, "imul", true)  // SF, ZF, AF, PF: computed by Intel's, kept by AMD's
TRAPLINE_KEEPING_ALU(Popcnt, "popcnt", true)
TRAPLINE_KEEPING_ALU(Lzcnt, "lzcnt", true)
TRAPLINE_KEEPING_ALU(Tzcnt, "tzcnt", true)

// Condition codes 0..15 as in Jcc, SETcc, CMOVcc (SDM Vol. 1 appendix B), on Vcpu::arith.
template <unsigned Cc>
inline bool condition(u32 f) {
  constexpr u32 o = 1, c = 0x100, p = 0x400, z = 0x4000, s = 0x8000;
  bool r;
  if constexpr (Cc / 2 == 0) r = f & o;
  if constexpr (Cc / 2 == 1) r = f & c;
  if constexpr (Cc / 2 == 2) r = f & z;
  if constexpr (Cc / 2 == 3) r = f & (c | z);
  if constexpr (Cc / 2 == 4) r = f & s;
  if constexpr (Cc / 2 == 5) r = f & p;
  if constexpr (Cc / 2 == 6) r = (f ^ f >> 15) & 1;
  if constexpr (Cc / 2 == 7) r = ((f ^ f >> 15) & 1) | (f & z);
  return r != (Cc % 2 == 1);
}

template <unsigned Cc>
struct Cmov : Operation {
  static constexpr bool flags = false, reads = true;
  template <class T>
  static T apply(u16& f, T a, T b) {
    return condition<Cc>(f) ? b : a;
  }
};

}  // namespace trapline::engine::semantics
