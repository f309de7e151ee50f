#include "fuzz/native_frame.h"

#include <cpuid.h>
#include <x86intrin.h>

#include <cstring>

namespace trapline::fuzz {

namespace {

// By register number as encodings have it.
constexpr int kOrder[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                            REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

constexpr u64 kX87 = 1, kSse = 2, kAvx = 4, kOpmask = 1 << 5, kZmmHigh = 1 << 6, kZmm16To31 = 1 << 7;
constexpr unsigned kMxcsrAt = 24, kXmmAt = 160, kHeaderAt = 512;

u64 components(const FrameLayout& l) {
  return kX87 | kSse | (l.avx ? kAvx : 0) | (l.opmask ? kOpmask | kZmmHigh | kZmm16To31 : 0);
}

u8* image_of(const ucontext_t& context) { return reinterpret_cast<u8*>(context.uc_mcontext.fpregs); }

}  // namespace

[[gnu::target("xsave")]] FrameLayout FrameLayout::of_host() {
  FrameLayout l;
  unsigned a, b, c, d;
  __cpuid(1, a, b, c, d);
  if (!(c & bit_OSXSAVE)) return l;
  const auto xcr0 = static_cast<u64>(_xgetbv(0));
  const auto offset = [&](unsigned component) -> u32 {
    if (!(xcr0 >> component & 1)) return 0;
    __cpuid_count(0xd, component, a, b, c, d);
    return b;
  };
  l.avx = offset(2);
  l.opmask = offset(5);
  l.zmm_high = offset(6);
  l.zmm_16_31 = offset(7);
  return l;
}

void load_frame(ucontext_t& to, const Registers& from, u64 rip, const FrameLayout& l) {
  auto& g = to.uc_mcontext.gregs;
  for (unsigned i = 0; i < 16; i++) g[kOrder[i]] = static_cast<greg_t>(from.gpr[i]);
  g[REG_RIP] = static_cast<greg_t>(rip);
  g[REG_EFL] = static_cast<greg_t>(from.rflags);
  u8* image = image_of(to);
  std::memcpy(image, from.x87, 24);
  std::memcpy(image + kMxcsrAt, &from.mxcsr, 4);
  std::memcpy(image + 32, from.x87 + 32, 128);
  for (unsigned i = 0; i < 16; i++) {
    std::memcpy(image + kXmmAt + 16 * i, from.zmm[i], 16);
    if (l.avx) std::memcpy(image + l.avx + 16 * i, from.zmm[i] + 16, 16);
    if (l.zmm_high) std::memcpy(image + l.zmm_high + 32 * i, from.zmm[i] + 32, 32);
    if (l.zmm_16_31) std::memcpy(image + l.zmm_16_31 + 64 * i, from.zmm[16 + i], 64);
  }
  if (l.opmask) std::memcpy(image + l.opmask, from.k, sizeof from.k);
  if (!l.avx) return;
  u64 present;
  std::memcpy(&present, image + kHeaderAt, 8);
  present |= components(l);
  std::memcpy(image + kHeaderAt, &present, 8);
}

void save_frame(const ucontext_t& from, Registers& to, const FrameLayout& l) {
  const auto& g = from.uc_mcontext.gregs;
  for (unsigned i = 0; i < 16; i++) to.gpr[i] = static_cast<u64>(g[kOrder[i]]);
  to.rip = static_cast<u64>(g[REG_RIP]);
  to.rflags = static_cast<u64>(g[REG_EFL]);
  const u8* image = image_of(from);
  u64 present = kX87 | kSse;
  if (l.avx) std::memcpy(&present, image + kHeaderAt, 8);
  std::memset(to.zmm, 0, sizeof to.zmm);
  std::memset(to.k, 0, sizeof to.k);
  // A component that is absent is in its initial state: zero, but for the x87 control and tag words.
  std::memset(to.x87, 0, sizeof to.x87);
  to.x87[0] = 0x7f;
  to.x87[1] = 0x03;
  if (present & kX87) {
    std::memcpy(to.x87, image, 24);
    std::memcpy(to.x87 + 32, image + 32, 128);
  }
  std::memcpy(&to.mxcsr, image + kMxcsrAt, 4);
  for (unsigned i = 0; i < 16; i++) {
    if (present & kSse) std::memcpy(to.zmm[i], image + kXmmAt + 16 * i, 16);
    if (l.avx && (present & kAvx)) std::memcpy(to.zmm[i] + 16, image + l.avx + 16 * i, 16);
    if (l.zmm_high && (present & kZmmHigh)) std::memcpy(to.zmm[i] + 32, image + l.zmm_high + 32 * i, 32);
    if (l.zmm_16_31 && (present & kZmm16To31)) std::memcpy(to.zmm[16 + i], image + l.zmm_16_31 + 64 * i, 64);
  }
  if (l.opmask && (present & kOpmask)) std::memcpy(to.k, image + l.opmask, sizeof to.k);
}

}  // namespace trapline::fuzz
