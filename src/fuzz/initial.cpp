// Start states: operands that make instructions show their colours. Specials of every width among noise; pointers where
// memory operands will look for them.
#include <cstring>

#include "cpu/vcpu.h"
#include "fuzz/program.h"

namespace trapline::fuzz {

namespace {

constexpr u64 kSpecial64[] = {0,
                              1,
                              ~u64{0},
                              0x8000000000000000,
                              0x7fffffffffffffff,
                              0x7ff0000000000000,
                              0xfff0000000000000,
                              0x7ff8000000000001,
                              0x7ff0000000000001,
                              0x3ff0000000000000,
                              0xbff8000000000000,
                              0x000fffffffffffff,
                              0x7fefffffffffffff,
                              0x0010000000000000,
                              0x43e0000000000000,
                              0x00000000ffffffff,
                              0x0000000080000000};
constexpr u32 kSpecial32[] = {0,          1,          ~u32{0},    0x80000000, 0x7fffffff,
                              0x7f800000, 0xff800000, 0x7fc00001, 0x7f800001, 0x3f800000,
                              0xbfc00000, 0x007fffff, 0x7f7fffff, 0x00800000, 0x4f000000};
constexpr u16 kSpecial16[] = {0, 1, 0xffff, 0x8000, 0x7c00, 0xfc00, 0x7e01, 0x7c01, 0x3c00, 0x03ff, 0x7bff, 0x0400};

u64 word(Rng& rng) {
  switch (rng.below(6)) {
    case 0:
      return rng.pick(kSpecial64);
    case 1:
      return u64{rng.pick(kSpecial32)} << 32 | rng.pick(kSpecial32);
    case 2:
      return u64{rng.pick(kSpecial16)} << 48 | u64{rng.pick(kSpecial16)} << 32 | u64{rng.pick(kSpecial16)} << 16 |
             rng.pick(kSpecial16);
    case 3:
      return rng.below(256);
    default:
      return rng.next();
  }
}

void fill(Rng& rng, u8* to, u64 bytes) {
  for (u64 at = 0; at < bytes; at += 8) {
    const u64 v = word(rng);
    std::memcpy(to + at, &v, 8);
  }
}

u64 general(Rng& rng) {
  switch (rng.below(5)) {
    case 0:
      return rng.below(64);
    case 1:
      return static_cast<u64>(-static_cast<i64>(rng.below(64)));
    case 2:
      return rng.pick(kSpecial64);
    case 3:
      return static_cast<u32>(rng.next());
    default:
      return rng.next();
  }
}

void make_gpr(Rng& rng, Registers& r) {
  for (unsigned i = 0; i < 16; i++) r.gpr[i] = general(rng);
  for (const u8 p : kPointers) {
    const u64 middle = place::data + place::data_size / 4 + rng.below(place::data_size / 2);
    r.gpr[p] = rng.percent(75) ? middle & ~u64{63} : middle;
  }
  if (rng.percent(70)) r.gpr[isa::rcx] = rng.below(40);  // REP counts, shift counts
  r.gpr[kSmallIndex] = rng.below(16);
  r.gpr[isa::rsp] = (place::stack + place::stack_size / 2 + rng.below(64) * 8) & ~u64{15};
  if (rng.percent(3)) r.gpr[isa::rsp] = place::stack + place::stack_size - rng.below(24);
}

void make_flags(Rng& rng, Registers& r) {
  using namespace cpu::flag;
  r.rflags = fixed | if_ | (rng.next() & arith);
  if (rng.percent(12)) r.rflags |= df;
  if (rng.percent(4)) r.rflags |= ac;
}

void make_vectors(Rng& rng, const Extent& extent, Registers& r) {
  const unsigned count = extent.avx512 ? 32 : 16, bytes = extent.avx512 ? 64 : extent.avx ? 32 : 16;
  for (unsigned i = 0; i < count; i++) fill(rng, r.zmm[i], bytes);
  // Index vectors for gathers and scatters: small doublewords, small quadwords.
  for (const unsigned i : {7u, 23u, 15u, 31u}) {
    if (i >= count || rng.percent(10)) continue;
    const bool quad = i & 8;
    for (unsigned at = 0; at < bytes; at += quad ? 8 : 4) {
      const u64 v = rng.below(64);
      std::memcpy(r.zmm[i] + at, &v, quad ? 8 : 4);
    }
  }
  if (extent.avx512)
    for (u64& k : r.k) k = rng.percent(25) ? ~u64{0} : rng.next();
  r.mxcsr = 0x1f80;
  if (rng.percent(40)) r.mxcsr |= static_cast<u32>(rng.below(4) << 13 | (rng.next() & 0x803f));  // rounding, FTZ, flags
  if (rng.percent(10)) r.mxcsr |= 0x40;                                                          // DAZ
  if (rng.percent(6)) r.mxcsr &= ~static_cast<u32>(rng.next() & 0x1f80);                         // unmasked exceptions
}

// One 80-bit register: a converted double, a special, or any bits (unnormals too).
void make_st(Rng& rng, u8* to) {
  u64 mantissa = rng.next() | u64{1} << 63;
  u16 exponent = static_cast<u16>(0x3fff + rng.below(128) - 64) | static_cast<u16>(rng.below(2) << 15);
  switch (rng.below(8)) {
    case 0:
      mantissa = 0, exponent &= 0x8000;
      break;
    case 1:
      mantissa = u64{1} << 63, exponent |= 0x7fff;
      break;  // infinity
    case 2:
      mantissa = rng.next() | u64{1} << 63, exponent |= 0x7fff;
      break;  // NaNs
    case 3:
      mantissa &= ~(u64{1} << 63), exponent &= 0x8000;
      break;  // denormal
    case 4:
      mantissa = rng.next(), exponent = static_cast<u16>(rng.next());
      break;  // anything
    case 5:
      mantissa = u64{1} << 63, exponent = static_cast<u16>(0x3fff + rng.below(8));
      break;  // powers of two
    default:
      break;
  }
  std::memcpy(to, &mantissa, 8);
  std::memcpy(to + 8, &exponent, 2);
}

void make_x87(Rng& rng, Registers& r) {
  u16 fcw = 0x37f, fsw = 0;
  if (rng.percent(30)) fcw = static_cast<u16>(0x7f | rng.below(4) << 8 | rng.below(4) << 10);
  if (fcw >> 8 == 1) fcw |= 0x300;
  if (rng.percent(5)) fcw &= static_cast<u16>(~(rng.next() & 0x3f));  // unmasked exceptions
  fcw |= 0x40;
  if (rng.percent(60)) fsw = static_cast<u16>(rng.below(8) << 11 | (rng.next() & 0x4700));  // TOP and condition codes
  const u8 tags = rng.percent(50) ? static_cast<u8>(rng.next()) : rng.percent(50) ? 0 : 0xff;
  std::memcpy(r.x87, &fcw, 2);
  std::memcpy(r.x87 + 2, &fsw, 2);
  r.x87[4] = tags;
  for (unsigned i = 0; i < 8; i++) make_st(rng, r.x87 + 32 + 16 * i);
}

}  // namespace

void make_initial(Rng& rng, const Extent& extent, isa::CodeSize size, Snapshot& out) {
  std::memset(&out.regs, 0, sizeof out.regs);
  make_gpr(rng, out.regs);
  if (size != isa::CodeSize::bits64)  // the upper halves are undefined there
    for (unsigned i = 0; i < 8; i++) out.regs.gpr[i] &= 0xffffffff;
  make_flags(rng, out.regs);
  make_vectors(rng, extent, out.regs);
  make_x87(rng, out.regs);
  fill(rng, out.memory.data, sizeof out.memory.data);
  fill(rng, out.memory.stack, sizeof out.memory.stack);
  constexpr u64 kHeader = place::xsave - place::data + 512;
  if (rng.percent(60)) std::memset(out.memory.data + kHeader, 0, 64);
}

}  // namespace trapline::fuzz
