#include "engine/hostcode/thunks.h"

#include <cstddef>
#include <optional>
#include <vector>

#include "base/invariant.h"
#include "engine/vector/features.h"

namespace trapline::engine::hostcode {

namespace {

// (V)MOVUPS between a vector register, as wide as the host has it, and its place in cpu.vec.
void vector_move(Emitter& e, bool store, u8 reg, const Mem& m) {
  const unsigned opcode = store ? 0x11 : 0x10;
  if (vector::host_has_avx512()) {
    e.put(0x62, (reg & 8 ? 0 : 0x80) | 0x60 | (reg & 16 ? 0 : 0x10) | 1, 0x7C, 0x48, opcode);
    e.modrm(reg, m);
  } else if (vector::host_has_avx()) {
    e.put(0xC5, (reg & 8 ? 0 : 0x80) | 0x7C, opcode);
    e.modrm(reg, m);
  } else {
    if (reg & 8) e.byte(0x44);
    e.put(0x0F, opcode);
    e.modrm(reg, m);
  }
}

void mask_move(Emitter& e, bool store, u8 reg, const Mem& m) {
  if (vector::host_has_avx512bw())
    e.put(0xC4, 0xE1, 0xF8, store ? 0x91 : 0x90);  // KMOVQ
  else
    e.put(0xC5, 0xF8, store ? 0x91 : 0x90);  // KMOVW
  e.modrm(reg, m);
}

void vzeroupper(Emitter& e) { e.put(0xC5, 0xF8, 0x77); }

void upper_registers_and_masks(Emitter& e, cpu::Vcpu& cpu, bool store) {
  if (!vector::host_has_avx512()) return;
  for (u8 i = 16; i < 32; i++) vector_move(e, store, i, var(&cpu.vec.zmm[i]));
  for (u8 i = 0; i < 8; i++) mask_move(e, store, i, var(&cpu.vec.k[i]));
}

// Stores leave the registers' upper parts clean if they are.
void save_vectors(Emitter& e, cpu::Vcpu& cpu, State& state) {
  for (u8 i = 0; i < 16; i++) vector_move(e, true, i, var(&cpu.vec.zmm[i]));
  upper_registers_and_masks(e, cpu, true);
  e.stmxcsr(var(&cpu.vec.mxcsr));
  e.ldmxcsr(var(&state.host_mxcsr));
  e.store_imm32(var(&state.vec_live), 0, true);
  if (vector::host_has_avx()) vzeroupper(e);  // C++ may use SSE
}

// RCX = 0 if ZMM0 to ZMM15 are 0 in cpu.vec above their XMM parts. Leaves the flags alone, and dirty uppers.
void test_uppers(Emitter& e, cpu::Vcpu& cpu) {
  const unsigned w = vector::host_has_avx512() ? 0xFC : 0xF8;  // VEX.256 or VEX.128
  e.put(0xC5, 0xF8, 0x57, 0xC0);                               // VXORPS XMM0, XMM0, XMM0
  const auto gather = [&](const u8* from) {
    e.put(0xC5, w, 0x56);  // VORPS (X or Y)MM0, (X or Y)MM0, m
    e.modrm(0, var(from));
  };
  for (u8 i = 0; i < 16; i++) {
    gather(&cpu.vec.zmm[i][16]);
    if (vector::host_has_avx512()) gather(&cpu.vec.zmm[i][32]);
  }
  if (vector::host_has_avx512()) {
    e.put(0xC4, 0xE3, 0x7D, 0x19, 0xC1, 1);  // VEXTRACTF128 XMM1, YMM0, 1
    e.put(0xC5, 0xF8, 0x56, 0xC1);           // VORPS XMM0, XMM0, XMM1
  }
  e.put(0xC5, 0xF9, 0x6D, 0xC8);        // VPUNPCKHQDQ XMM1, XMM0, XMM0
  e.put(0xC5, 0xF8, 0x56, 0xC1);        // VORPS XMM0, XMM0, XMM1
  e.put(0xC4, 0xE1, 0xF9, 0x7E, 0xC1);  // VMOVQ RCX, XMM0
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
    for (u8 i = 0; i < 16; i++) {
      if (i & 8) e.byte(0x44);
      e.put(0x0F, 0x10);  // MOVUPS
      e.modrm(i, var(&cpu.vec.zmm[i]));
    }
    done = e.jmp_far();
    e.bind(dirty);
  }
  for (u8 i = 0; i < 16; i++) vector_move(e, false, i, var(&cpu.vec.zmm[i]));
  if (done) e.bind(*done);
  upper_registers_and_masks(e, cpu, false);
  e.ldmxcsr(var(&cpu.vec.mxcsr));
  e.store_imm32(var(&state.vec_live), 1, true);
}

template <class Fn>
void each_register(cpu::Vcpu& cpu, Fn fn) {
  for (u8 g = 0; g < 16; g++)
    if (kHost[g] != kNone && g != isa::rsp) fn(kHost[g], var(&cpu.gpr[g]));
}

void load_guest(Emitter& e, cpu::Vcpu& cpu, State& state) {
  restore_flags(e, cpu.arith);
  each_register(cpu, [&](u8 host, const Mem& home) { e.load(host, home); });
  e.load(rsp, var(&cpu.gpr[isa::rsp]));
  e.jmp_mem(var(&state.target));
}

void save_guest(Emitter& e, cpu::Vcpu& cpu, State& state) {
  e.store(var(&state.t0), r10);
  each_register(cpu, [&](u8 host, const Mem& home) { e.store(home, host); });
  e.store(var(&cpu.gpr[isa::rsp]), rsp);
  save_flags(e, cpu.arith);
}

constexpr u8 kSaved[] = {rbx, rbp, r12, r13, r14, r15};

void push_saved(Emitter& e) {
  for (u8 r : kSaved) e.push(r);
  e.lea(rsp, at(rsp, -8));  // calls from here are aligned
}

void pop_saved(Emitter& e) {
  e.lea(rsp, at(rsp, 8));
  for (int i = 5; i >= 0; i--) e.pop(kSaved[i]);
  e.ret();
}

// A jump whose slot another one has may find its own among those displaced.
void find_displaced(Emitter& e, State& state, u64 call) {
  e.store(var(&state.t0), r10);
  e.store(var(&state.tmp), r11);
  e.mov_imm(r10, 0);
  e.op(0xF2, true, 0x0F38F1, r10, rcx);  // CRC32
  static_assert(JumpCache::kVictims == 256);
  e.movzx8(r10, r10);
  e.load(r11, var(&state.victims));
  static_assert(sizeof(Victim) == 4 * 8);
  e.lea(r10, at(kNone, r10, 2));
  e.lea(r10, at(r11, r10, 3));
  e.load(r11, at(r10, offsetof(Victim, negated)));
  e.lea(rcx, at(rcx, r11, 0));
  const auto address = e.jrcxz();
  const auto other = e.jmp_near();
  e.bind(address);
  e.load(rcx, var(&state.t0));
  e.load(r11, at(r10, offsetof(Victim, negated_linear)));
  e.lea(rcx, at(rcx, r11, 0));
  const auto found = e.jrcxz();
  e.bind(other);
  e.load(r11, var(&state.tmp));
  e.load(r10, var(&state.t0));
  e.jmp(call);
  e.bind(found);
  e.jmp_mem(at(r10, offsetof(Victim, entry)));
}

// CPUID: to the stub's `resume` with what C++ has answered before; else a call, and where somebody wants attention: it
// serializes, and code that others have changed is not to run behind it.
void answer_cpuid(Emitter& e, cpu::Vcpu& cpu, State& state, u64 call) {
  using A = CpuidAnswer;
  std::vector<Emitter::Far> slow;
  const auto slow_if_not = [&](Condition c) { slow.push_back(e.jcc(opposite(c))); };
  const auto compare = [&](u8 reg, bool wide, const Mem& m) {
    e.op(0, wide, 0x3B, reg, m);
    slow_if_not(Condition::zero);
  };
  e.store(var(&state.saved_rax), rax);
  e.mov32(r10, rax);
  save_flags(e, state.saved_flags);
  e.load(rcx, var(&cpu.attention));
  e.op(0, false, 0x83, 7, at(rcx), 1), e.byte(0);  // CMP
  slow_if_not(Condition::zero);
  static_assert(State::kCpuidAnswers == 16 && sizeof(A) == 64);
  e.rorx32(rcx, r10, 28);  // leaves begin anew at 40000000 and 80000000
  e.add(rcx, r10);
  e.and_imm32(rcx, State::kCpuidAnswers - 1);
  e.shl(rcx, 6);
  e.lea(rax, var(&state.cpuid[0]));
  e.add(rcx, rax);
  compare(r10, false, at(rcx, offsetof(A, leaf)));
  e.mov32(rax, r15);
  e.op(0, false, 0x33, rax, at(rcx, offsetof(A, subleaf)));       // XOR
  e.op(0, false, 0x85, rax, at(rcx, offsetof(A, subleaf_mask)));  // TEST
  slow_if_not(Condition::zero);
  e.load(rax, var(&cpu.cr4));
  compare(rax, true, at(rcx, offsetof(A, cr4)));
  e.load(rax, var(&cpu.xcr0));
  compare(rax, true, at(rcx, offsetof(A, xcr0)));
  e.load(rax, var(&cpu.msr.xss));
  compare(rax, true, at(rcx, offsetof(A, xss)));
  e.load(rax, var(&state.apic_base));
  e.load(rax, at(rax));
  compare(rax, true, at(rcx, offsetof(A, apic_base)));
  restore_flags(e, state.saved_flags);
  e.load32(rax, at(rcx, offsetof(A, eax)));
  e.load32(rbx, at(rcx, offsetof(A, ebx)));
  e.load32(r15, at(rcx, offsetof(A, ecx)));
  e.load32(rdx, at(rcx, offsetof(A, edx)));
  e.jmp_mem(at(r11, offsetof(ExitStub, resume)));
  for (const Emitter::Far jump : slow) e.bind(jump);
  restore_flags(e, state.saved_flags);
  e.load(rax, var(&state.saved_rax));
  e.jmp(call);
}

}  // namespace

ThunkAddresses emit_thunks(Emitter& e, cpu::Vcpu& cpu, State& state, CallHandler handler, void* self,
                           ExitStub* trap_site) {
  ThunkAddresses t;
  t.enter = e.pc();
  push_saved(e);
  e.store(var(&state.host_rsp), rsp);
  e.store(var(&state.target), rdi);
  load_guest(e, cpu, state);

  t.load_vec = e.pc();
  load_vectors(e, cpu, state);
  e.jmp_reg(r11);

  t.gathered = e.pc();
  e.load(rcx, var(&state.addend));
  e.load(r10, var(&state.t0));
  e.jmp_mem(var(&state.hit));

  t.trap = e.pc();
  e.load(rsp, var(&state.trap_rsp));
  e.mov_imm(r11, reinterpret_cast<u64>(trap_site));
  // goes on as a call
  t.call = e.pc();
  save_guest(e, cpu, state);
  e.load(rsp, var(&state.host_rsp));
  e.load(rdx, var(&state.vec_live));
  e.mov(rsi, r11);
  e.test(rdx, rdx);
  const auto dead = e.jcc(Condition::zero);
  save_vectors(e, cpu, state);
  e.bind(dead);
  e.mov_imm(rdi, reinterpret_cast<u64>(self));
  e.mov_imm(rax, reinterpret_cast<u64>(handler));
  e.call_reg(rax);
  e.test(rax, rax);
  const auto leave = e.jcc(Condition::zero);
  e.store(var(&state.target), rax);
  e.test(rdx, rdx);
  const auto without = e.jcc(Condition::zero);
  load_vectors(e, cpu, state);
  e.bind(without);
  load_guest(e, cpu, state);

  e.bind(leave);
  pop_saved(e);
  t.indirect = e.pc();
  find_displaced(e, state, t.call);
  t.cpuid = e.pc();
  answer_cpuid(e, cpu, state, t.call);
  return t;
}

}  // namespace trapline::engine::hostcode
