#include "engine/hostcode/vector_thunks.h"

#include <optional>

#include "engine/emit/vector_forms.h"
#include "engine/vector/features.h"

namespace trapline::engine::hostcode {

namespace {

// Between a vector register, as wide as the host has it, and its place in cpu.vec.
void load_vector(Emitter& e, u8 reg, const Mem& m) {
  if (!vector::host_has_avx()) return movups(e, reg, m);
  vmovups(e, vector::host_has_avx512() ? Width::zmm : Width::ymm, reg, m);
}
void store_vector(Emitter& e, u8 reg, const Mem& m) {
  if (!vector::host_has_avx()) return movups(e, m, reg);
  vmovups(e, vector::host_has_avx512() ? Width::zmm : Width::ymm, m, reg);
}

void load_uppers_and_masks(Emitter& e, cpu::Vcpu& cpu) {
  if (!vector::host_has_avx512()) return;
  for (u8 i = 16; i < 32; i++) load_vector(e, i, var(&cpu.vec.zmm[i]));
  for (u8 i = 0; i < 8; i++)
    vector::host_has_avx512bw() ? kmovq(e, i, var(&cpu.vec.k[i])) : kmovw(e, i, var(&cpu.vec.k[i]));
}
void store_uppers_and_masks(Emitter& e, cpu::Vcpu& cpu) {
  if (!vector::host_has_avx512()) return;
  for (u8 i = 16; i < 32; i++) store_vector(e, i, var(&cpu.vec.zmm[i]));
  for (u8 i = 0; i < 8; i++)
    vector::host_has_avx512bw() ? kmovq(e, var(&cpu.vec.k[i]), i) : kmovw(e, var(&cpu.vec.k[i]), i);
}

// RCX = 0 if ZMM0 to ZMM15 are 0 in cpu.vec above their XMM parts. Leaves the flags alone, and dirty uppers.
void test_uppers(Emitter& e, cpu::Vcpu& cpu) {
  constexpr u8 kAll = 0, kUpper = 1;  // XMM0, XMM1
  const bool zmm = vector::host_has_avx512();
  vxorps(e, kAll, kAll, kAll);
  for (u8 i = 0; i < 16; i++) {
    vorps(e, zmm ? Width::ymm : Width::xmm, kAll, kAll, var(&cpu.vec.zmm[i][16]));
    if (zmm) vorps(e, Width::ymm, kAll, kAll, var(&cpu.vec.zmm[i][32]));
  }
  if (zmm) {
    vextractf128(e, kUpper, kAll, 1);
    vorps(e, kAll, kAll, kUpper);
  }
  vpunpckhqdq(e, kUpper, kAll, kAll);
  vorps(e, kAll, kAll, kUpper);
  vmovq_to_gpr(e, rcx, kAll);
}

}  // namespace

// Stores leave the registers' upper parts clean if they are.
void save_vectors(Emitter& e, cpu::Vcpu& cpu, State& state) {
  for (u8 i = 0; i < 16; i++) store_vector(e, i, var(&cpu.vec.zmm[i]));
  store_uppers_and_masks(e, cpu);
  e.stmxcsr(var(&cpu.vec.mxcsr));
  e.ldmxcsr(var(&state.host_mxcsr));
  e.store_imm32(var(&state.vec_live), 0, true);
  if (vector::host_has_avx()) vzeroupper(e);  // C++ may use SSE
}

// Where the guest's uppers are clean, the host's must become so again, not filled with zeros: between dirty uppers and
// legacy SSE instructions lie some 300 cycles (Intel Optimization Reference Manual, "Mixing Intel AVX and Intel SSE").
void load_vectors(Emitter& e, cpu::Vcpu& cpu, State& state) {
  std::optional<Emitter::Far> done;
  if (vector::host_has_avx()) {
    test_uppers(e, cpu);
    vzeroupper(e);
    const auto clean = e.jrcxz();
    const auto dirty = e.jmp_far();
    e.bind(clean);
    for (u8 i = 0; i < 16; i++) movups(e, i, var(&cpu.vec.zmm[i]));
    done = e.jmp_far();
    e.bind(dirty);
  }
  for (u8 i = 0; i < 16; i++) load_vector(e, i, var(&cpu.vec.zmm[i]));
  if (done) e.bind(*done);
  load_uppers_and_masks(e, cpu);
  e.ldmxcsr(var(&cpu.vec.mxcsr));
  e.store_imm32(var(&state.vec_live), 1, true);
}

}  // namespace trapline::engine::hostcode
