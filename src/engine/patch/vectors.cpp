#include "engine/patch/vectors.h"

#include <cpuid.h>

#include <cstring>

#include "cpu/fpu_state.h"
#include "cpu/xsave.h"

namespace trapline::engine::patch {

namespace x = cpu::xsave;

namespace {

constexpr u32 kKnown = 0xe7;

u64 word(const u8* at) {
  u64 v;
  std::memcpy(&v, at, 8);
  return v;
}

bool zero(const u8* at, unsigned bytes) {
  u64 all = 0;
  for (unsigned i = 0; i < bytes; i += 8) all |= word(at + i);
  return all == 0;
}

}  // namespace

u32 host_components() {
  static const u32 components = [] {
    u32 a, b, c = 0, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE)) return 0u;
    u32 low, high;
    asm("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low & kKnown;
  }();
  return components;
}

void take_vectors(cpu::Vcpu& cpu, const u8* image) {
  const u64 used = word(image + x::kHeader) & kKnown;
  if (used & 1) {
    u8 x87[cpu::kX87ImageBytes];
    std::memcpy(x87, image, sizeof x87);
    cpu::x87_load_image(cpu, x87, true);
  } else {
    cpu::x87_initialize(cpu, true);
  }
  u32 mxcsr;
  std::memcpy(&mxcsr, image + x::kMxcsr, 4);
  cpu.vec.mxcsr = mxcsr & cpu::mxcsr_mask(cpu);
  for (unsigned i = 0; i < 16; i++) {
    if (used & x::bit(x::sse))
      std::memcpy(cpu.vec.zmm[i], image + x::kXmm + 16 * i, 16);
    else
      std::memset(cpu.vec.zmm[i], 0, 16);
  }
  for (const x::Component c : x::kExtended)
    if (host_components() & x::bit(c)) x::scatter(cpu, c, used & x::bit(c) ? image + x::standard_offset(c) : nullptr);
  cpu::x87_park(cpu);
}

void give_vectors(cpu::Vcpu& cpu, u8* image) {
  cpu::x87_park(cpu);
  u8 x87[cpu::kX87ImageBytes] = {};
  cpu::x87_store_image(cpu, x87, true);
  std::memcpy(image, x87, sizeof x87);
  const u32 mask = cpu::mxcsr_mask(cpu);
  std::memcpy(image + x::kMxcsr, &cpu.vec.mxcsr, 4);
  std::memcpy(image + x::kMxcsrMask, &mask, 4);
  u64 used = 1;
  for (unsigned i = 0; i < 16; i++) std::memcpy(image + x::kXmm + 16 * i, cpu.vec.zmm[i], 16);
  if (!zero(image + x::kXmm, 256)) used |= x::bit(x::sse);
  for (const x::Component c : x::kExtended) {
    if (!(host_components() & x::bit(c))) continue;
    u8* const at = image + x::standard_offset(c);
    x::gather(cpu, c, at);
    if (!zero(at, x::size_of(c))) used |= x::bit(c);
  }
  std::memset(image + x::kHeader, 0, sizeof(x::Header));
  std::memcpy(image + x::kHeader, &used, 8);
}

}  // namespace trapline::engine::patch
