// Runs one instruction natively on a whole register state, as the judge of the vector unit. Guest virtual addresses in
// these tests equal host addresses of guest RAM, so that one register state suits both.
#pragma once

#include <immintrin.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <cstring>
#include <random>
#include <span>
#include <vector>

#include "base/types.h"
#include "engine/vector/features.h"

namespace trapline::engine::test {

struct NativeState {
  alignas(64) u8 zmm[32][64];
  u64 k[8];
  u64 gpr[16];
  u64 rflags;
  u64 host_rsp;
  alignas(16) u8 fx[512];  // x87 and MXCSR
};

struct NativeResult {
  int signal = 0;  // 0: the instruction retired
  int code = 0;
  u64 address = 0;
  u32 mxcsr = 0;  // at the signal
};

class Native {
 public:
  Native() {
    code_ =
        static_cast<u8*>(mmap(nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    static bool installed = [] {
      struct sigaction action = {};
      action.sa_sigaction = on_signal;
      action.sa_flags = SA_SIGINFO | SA_NODEFER;
      for (int s : {SIGSEGV, SIGILL, SIGFPE, SIGBUS}) sigaction(s, &action, nullptr);
      return true;
    }();
    (void)installed;
  }
  ~Native() { munmap(code_, 4096); }
  Native(const Native&) = delete;

  NativeResult run(std::span<const u8> insn, NativeState& s) {
    emit(insn, s);
    result() = {};
    if (sigsetjmp(jump(), 0) == 0) {
      armed() = true;
      reinterpret_cast<void (*)()>(code_)();
    }
    armed() = false;
    asm volatile("fninit");
    if (vector::host_has_avx()) _mm_zeroupper_();
    _mm_setcsr(0x1f80);
    return result();
  }

 private:
  static sigjmp_buf& jump() {
    static sigjmp_buf j;
    return j;
  }
  static bool& armed() {
    static bool a = false;
    return a;
  }
  static NativeResult& result() {
    static NativeResult r;
    return r;
  }
  static void _mm_zeroupper_() { asm volatile("vzeroupper"); }

  static void on_signal(int signal, siginfo_t* info, void* context) {
    if (!armed()) {
      ::signal(signal, SIG_DFL);
      return;
    }
    const auto* uc = static_cast<ucontext_t*>(context);
    result() = {signal, info->si_code, reinterpret_cast<u64>(info->si_addr), uc->uc_mcontext.fpregs->mxcsr};
    siglongjmp(jump(), 1);
  }

  void byte(unsigned b) { code_[size_++] = static_cast<u8>(b); }
  template <class... B>
  void put(B... b) {
    (byte(static_cast<unsigned>(b)), ...);
  }
  void imm(u64 v, unsigned n) {
    for (unsigned i = 0; i < n; i++) byte(v >> (8 * i) & 255);
  }
  // op reg, [base + offset of field]; base: 7 = rdi-like numbers below 8, no SIB needed (not rsp)
  void gpr_move(bool store, unsigned reg, unsigned base, u64 offset) {
    put(0x48 | (reg & 8 ? 4 : 0) | (base & 8 ? 1 : 0), store ? 0x89 : 0x8B, 0x80 | (reg & 7) << 3 | (base & 7));
    imm(offset, 4);
  }
  void vector_move(bool store, unsigned reg, unsigned base, u64 offset) {
    if (vector::host_has_avx512())
      put(0x62, (reg & 8 ? 0 : 0x80) | 0x40 | (base & 8 ? 0 : 0x20) | (reg & 16 ? 0 : 0x10) | 1, 0x7C, 0x48,
          store ? 0x11 : 0x10);
    else if (vector::host_has_avx())
      put(0xC4, (reg & 8 ? 0 : 0x80) | 0x40 | (base & 8 ? 0 : 0x20) | 1, 0x7C, store ? 0x11 : 0x10);
    else
      put(0x40 | (reg & 8 ? 4 : 0) | (base & 8 ? 1 : 0), 0x0F, store ? 0x11 : 0x10);
    put(0x80 | (reg & 7) << 3 | (base & 7));
    imm(offset, 4);
  }
  void mask_move(bool store, unsigned k, unsigned base, u64 offset) {
    put(0xC4, 0xC1 | (base & 8 ? 0 : 0x20), vector::host_has_avx512bw() ? 0xF8 : 0x78, store ? 0x91 : 0x90,
        0x80 | k << 3 | (base & 7));
    imm(offset, 4);
  }

  void emit(std::span<const u8> insn, NativeState& s) {
    constexpr unsigned kR15 = 15;
    size_ = 0;
    const unsigned vectors = vector::host_has_avx512() ? 32 : 16;
    put(0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41, 0x57);  // push rbx rbp r12..r15
    put(0x49, 0xBF), imm(reinterpret_cast<u64>(&s), 8);               // mov r15, state
    gpr_move(true, 4, kR15, offsetof(NativeState, host_rsp));
    put(0x49, 0x0F, 0xAE, 0x8F), imm(offsetof(NativeState, fx), 4);  // fxrstor64
    for (unsigned i = 0; i < vectors; i++) vector_move(false, i, kR15, offsetof(NativeState, zmm) + i * 64);
    if (vector::host_has_avx512())
      for (unsigned i = 0; i < 8; i++) mask_move(false, i, kR15, offsetof(NativeState, k) + i * 8);
    put(0x41, 0xFF, 0xB7), imm(offsetof(NativeState, rflags), 4);  // push [flags]
    put(0x9D);                                                     // popfq
    for (unsigned i = 0; i < 16; i++)
      if (i != 4) gpr_move(false, i, kR15, offsetof(NativeState, gpr) + i * 8);
    for (u8 b : insn) byte(b);
    put(0x48, 0xA3), imm(reinterpret_cast<u64>(&s.gpr[0]), 8);  // mov [gpr0], rax
    put(0x48, 0xB8), imm(reinterpret_cast<u64>(&s), 8);         // mov rax, state
    for (unsigned i = 1; i < 16; i++)
      if (i != 4) gpr_move(true, i, 0, offsetof(NativeState, gpr) + i * 8);
    put(0x9C, 0x8F, 0x80), imm(offsetof(NativeState, rflags), 4);    // pushfq; pop [flags]
    put(0x48, 0x0F, 0xAE, 0x80), imm(offsetof(NativeState, fx), 4);  // fxsave64
    for (unsigned i = 0; i < vectors; i++) vector_move(true, i, 0, offsetof(NativeState, zmm) + i * 64);
    if (vector::host_has_avx512())
      for (unsigned i = 0; i < 8; i++) mask_move(true, i, 0, offsetof(NativeState, k) + i * 8);
    put(0x41, 0x5F, 0x41, 0x5E, 0x41, 0x5D, 0x41, 0x5C, 0x5D, 0x5B, 0xC3);
  }

  u8* code_;
  unsigned size_ = 0;
};

// Operands that make instructions show their colours: specials of every float width among noise.
class Values {
 public:
  explicit Values(u64 seed) : rng_{seed} {}
  u64 bits() { return rng_(); }
  u64 below(u64 n) { return rng_() % n; }
  void fill(void* to, std::size_t bytes) {
    auto* p = static_cast<u8*>(to);
    for (std::size_t at = 0; at < bytes; at += 8) {
      const u64 v = word();
      std::memcpy(p + at, &v, bytes - at < 8 ? bytes - at : 8);
    }
  }

 private:
  u64 word() {
    static constexpr u64 k64[] = {0,
                                  1,
                                  0x8000000000000000,
                                  0x7ff0000000000000,
                                  0xfff0000000000000,
                                  0x7ff8000000000001,
                                  0x7ff0000000000001,
                                  0x3ff0000000000000,
                                  0xbff8000000000000,
                                  0x000fffffffffffff,
                                  0x7fefffffffffffff,
                                  0x0010000000000000,
                                  0x41dfffffffc00000,
                                  0x43e0000000000000};
    static constexpr u32 k32[] = {0,          1,          0x80000000, 0x7f800000, 0xff800000, 0x7fc00001, 0x7f800001,
                                  0x3f800000, 0xbfc00000, 0x007fffff, 0x7f7fffff, 0x00800000, 0x4f000000, 0x33800000};
    static constexpr u16 k16[] = {0, 1, 0x8000, 0x7c00, 0xfc00, 0x7e01, 0x7c01, 0x3c00, 0xbe00, 0x03ff, 0x7bff, 0x0400};
    switch (below(5)) {
      case 0:
        return k64[below(std::size(k64))];
      case 1:
        return static_cast<u64>(k32[below(std::size(k32))]) << 32 | k32[below(std::size(k32))];
      case 2: {
        u64 v = 0;
        for (int i = 0; i < 4; i++) v = v << 16 | k16[below(std::size(k16))];
        return v;
      }
      default:
        return bits();
    }
  }
  std::mt19937_64 rng_;
};

}  // namespace trapline::engine::test
