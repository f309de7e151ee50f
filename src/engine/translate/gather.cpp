#include "engine/translate/gather.h"

#include <cstddef>
#include <vector>

#include "engine/hostcode/thunks.h"

namespace trapline::engine::translate {

using namespace hostcode;

// A load of up to `bytes` at RCX over the end of a page: from a copy of both sides, which is as much aligned.
void emit_gather(Emitter& e, State& state, u8 bytes, u64 call) {
  std::vector<Emitter::Far> slow;
  const auto slow_if = [&](Condition c) { slow.push_back(e.jcc(c)); };
  e.store(var(&state.saved_rax), rax);
  e.store(var(&state.saved_rdx), rdx);
  e.store(var(&state.t0), r10);
  save_flags(e, state.saved_flags);
  e.mov(r10, rcx);
  // Does it cross, and are both ends canonical?
  e.movzx8(rcx, at(r11, offsetof(ExitStub, size)));
  e.lea(rdx, at(r10, rcx, 0, -1));
  for (const u8 end : {r10, rdx}) {
    e.mov(rax, end);
    e.shl(rax, 16);
    e.sar(rax, 16);
    e.cmp(rax, end);
    slow_if(Condition::not_zero);
  }
  e.exclusive_or(rdx, r10);
  e.shr(rdx, 12);
  slow_if(Condition::zero);
  // At the end of 4 GiB 32-bit addresses begin anew, at that of all others too.
  e.cmp_imm32(rdx, 0xfffff);
  slow_if(Condition::above);
  e.shl(rax, 16);  // it has the last byte's address, whose page's number is one more
  e.shr(rax, 28);
  e.shl(rax, 4);
  e.op(0, true, 0x03, rax, var(&state.tables));  // ADD
  e.load(rcx, at(rax));
  e.load(rax, at(rax, -16));
  for (const u8 addend : {rax, rcx}) {
    e.test(addend, addend);
    slow_if(Condition::zero);
  }
  e.mov(rdx, r10);
  e.or_imm32(rdx, kPageSize - 1);
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
  e.or_imm32(rdx, kPageSize - 1);
  e.complement(rdx);
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
  for (const Emitter::Far jump : slow) e.bind(jump);
  restore();
  e.jmp(call);
}

}  // namespace trapline::engine::translate
