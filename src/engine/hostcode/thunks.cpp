#include "engine/hostcode/thunks.h"

#include <cstddef>
#include <vector>

#include "engine/hostcode/vector_thunks.h"

namespace trapline::engine::hostcode {

namespace {

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
  e.crc32(r10, rcx);
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

// CPUID: to the stub's `resume` with what C++ has answered before; else a call, and where attention is asked for: it
// serializes, and code that others have changed is not to run behind it.
void answer_cpuid(Emitter& e, cpu::Vcpu& cpu, State& state, u64 call) {
  using A = CpuidAnswer;
  std::vector<Emitter::Far> slow;
  const auto slow_if_not = [&](Condition c) { slow.push_back(e.jcc(opposite(c))); };
  const auto compare = [&](u8 reg, const Mem& m) {
    e.cmp(reg, m);
    slow_if_not(Condition::zero);
  };
  e.store(var(&state.saved_rax), rax);
  e.mov32(r10, rax);
  save_flags(e, state.saved_flags);
  e.load(rcx, var(&cpu.attention));
  e.cmp32_imm8(at(rcx), 0);
  slow_if_not(Condition::zero);
  static_assert(State::kCpuidAnswers == 16 && sizeof(A) == 64);
  e.rorx32(rcx, r10, 28);  // leaves begin anew at 40000000 and 80000000
  e.add(rcx, r10);
  e.and_imm32(rcx, State::kCpuidAnswers - 1);
  e.shl(rcx, 6);
  e.lea(rax, var(&state.cpuid[0]));
  e.add(rcx, rax);
  e.cmp32(r10, at(rcx, offsetof(A, leaf)));
  slow_if_not(Condition::zero);
  e.mov32(rax, r15);
  e.exclusive_or32(rax, at(rcx, offsetof(A, subleaf)));
  e.test32(at(rcx, offsetof(A, subleaf_mask)), rax);
  slow_if_not(Condition::zero);
  e.load(rax, var(&cpu.cr4));
  compare(rax, at(rcx, offsetof(A, cr4)));
  e.load(rax, var(&cpu.xcr0));
  compare(rax, at(rcx, offsetof(A, xcr0)));
  e.load(rax, var(&cpu.msr.xss));
  compare(rax, at(rcx, offsetof(A, xss)));
  e.load(rax, var(&state.apic_base));
  e.load(rax, at(rax));
  compare(rax, at(rcx, offsetof(A, apic_base)));
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
