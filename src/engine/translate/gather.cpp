#include "engine/translate/gather.h"

#include <cstddef>
#include <vector>

#include "engine/hostcode/thunks.h"

namespace trapline::engine::translate {

using namespace hostcode;

// A load of up to `bytes` at RCX over the end of a page: from a copy of both sides, which is as much aligned.
void emit_gather(Emitter& e, State& state, u8 bytes, u64 call) {
  std::vector<u32> slow;
  const auto slow_if = [&](Condition c) { slow.push_back(forward(e, c)); };
  const auto with_imm8 = [&](u8 op, u8 reg, u8 value) {
    e.op(0, true, 0xC1, op, reg);
    e.byte(value);
  };
  constexpr u8 kShl = 4, kShr = 5, kSar = 7;
  e.store(var(&state.saved_rax), rax);
  e.store(var(&state.saved_rdx), rdx);
  e.store(var(&state.t0), r10);
  save_flags(e, state.saved_flags);
  e.mov(r10, rcx);
  // Does it cross, and are both ends canonical?
  e.op(0, false, 0x0FB6, rcx, at(r11, offsetof(ExitStub, size)));  // MOVZX
  e.lea(rdx, at(r10, rcx, 0, -1));
  for (const u8 end : {r10, rdx}) {
    e.mov(rax, end);
    with_imm8(kShl, rax, 16);
    with_imm8(kSar, rax, 16);
    e.op(0, true, 0x3B, rax, end);  // CMP
    slow_if(kNotZero);
  }
  e.op(0, true, 0x33, rdx, r10);  // XOR
  e.op(0, true, 0xC1, kShr, rdx), e.byte(12);
  slow_if(kZero);
  // At the end of 4 GiB 32-bit addresses begin anew, at that of all others too.
  e.op(0, true, 0x81, 7, rdx), e.imm32(0xfffff);  // CMP
  slow_if(kAbove);
  with_imm8(kShl, rax, 16);  // it has the last byte's address, whose page's number is one more
  with_imm8(kShr, rax, 28);
  with_imm8(kShl, rax, 4);
  e.op(0, true, 0x03, rax, var(&state.tables));  // ADD
  e.load(rcx, at(rax));
  e.load(rax, at(rax, -16));
  for (const u8 addend : {rax, rcx}) {
    e.op(0, true, 0x85, addend, addend);  // TEST
    slow_if(kZero);
  }
  e.mov(rdx, r10);
  e.op(0, true, 0x81, 1, rdx), e.imm32(kPageSize - 1);  // OR
  e.lea(rax, at(rdx, rax, 0, 1 - bytes));
  e.lea(rcx, at(rdx, rcx, 0, 1));
  u8* const middle = &state.gathered[sizeof state.gathered / 2];
  for (i32 i = 0; i < bytes; i += 8) {
    e.load(rdx, at(rax, i));
    e.store(var(middle - bytes + i), rdx);
    e.load(rdx, at(rcx, i));
    e.store(var(middle + i), rdx);
  }
  // The end of the page is in the middle: RCX = middle - (R10 | FFF) - 1.
  e.mov(rdx, r10);
  e.op(0, true, 0x81, 1, rdx), e.imm32(kPageSize - 1);
  e.op(0, true, 0xF7, 2, rdx);  // NOT
  e.lea(rcx, var(middle));
  e.lea(rcx, at(rcx, rdx, 0));
  const auto restore = [&] {
    restore_flags(e, state.saved_flags);
    e.load(rax, var(&state.saved_rax));
    e.load(rdx, var(&state.saved_rdx));
    e.load(r10, var(&state.t0));
  };
  restore();
  e.jmp_mem(at(r11, offsetof(ExitStub, hit)));
  for (const u32 at : slow) land(e, at);
  restore();
  e.jmp(call);
}

}  // namespace trapline::engine::translate
