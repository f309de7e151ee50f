#include "engine/translate/descriptor_parts.h"

#include <cstddef>

#include "engine/hostcode/exit_stub.h"

namespace trapline::engine::translate {

using namespace hostcode;
using namespace descriptor;

void DescriptorParts::begin(std::optional<Emitter::Far>* null) {
  constexpr u32 kLocal = 4;
  parts_.save();
  e_.store(var(&state_.borrowed[0]), rbx);
  e_.mov32(rdx, r10);
  e_.and_imm32(rdx, kLocal);
  slow_if(Condition::not_zero);
  e_.mov32(rdx, r10);
  e_.and_imm32(rdx, 0xfff8);
  if (null)
    *null = e_.jcc(Condition::zero);
  else
    slow_if(Condition::zero);
  e_.lea(rax, at(rdx, 7));
  e_.movzx16(rcx, var(&cpu_.gdtr.limit));
  e_.cmp(rax, rcx);
  slow_if(Condition::above);
  e_.add(rdx, var(&cpu_.gdtr.base));
  parts_.sum_pages(rax, rcx, rdx, at(rdx, 7), true);
  e_.mov_imm64(rcx, tables_);
  e_.load(rax, at(rcx, rax, 3));
  e_.test(rax, rax);
  slow_if(Condition::zero);
  e_.load(rdx, at(rdx, rax, 0));
  e_.mov(rax, rdx);
  e_.shr(rax, 32);
}

void DescriptorParts::demand(u32 mask, u32 value) {
  e_.mov32(rcx, rax);
  e_.and_imm32(rcx, mask);
  e_.cmp_imm32(rcx, value);
  slow_if(Condition::not_zero);
}

void DescriptorParts::readable() {
  e_.mov32(rcx, rax);
  e_.and_imm32(rcx, kCode | kReadWrite);
  e_.cmp_imm32(rcx, kCode);
  slow_if(Condition::zero);
}

// Conforming code is asked for no more, but is rare.
void DescriptorParts::visible() {
  e_.mov32(rcx, rax);
  e_.shr(rcx, kDplShift);
  e_.and_imm32(rcx, 3);
  e_.movzx8(rbx, var(&cpu_.cpl));
  e_.cmp(rcx, rbx);
  slow_if(Condition::below);
  e_.mov32(rbx, r10);
  e_.and_imm32(rbx, 3);
  e_.cmp(rcx, rbx);
  slow_if(Condition::below);
}

void DescriptorParts::limit() {
  e_.mov32(rbx, rdx);
  e_.and_imm32(rbx, 0xffff);
  e_.mov32(rcx, rax);
  e_.and_imm32(rcx, 0xf0000);
  e_.add(rbx, rcx);
  e_.mov32(rcx, rax);
  e_.and_imm32(rcx, kGranular);
  const Emitter::Far bytes = e_.jcc(Condition::zero);
  e_.shl(rbx, 12);
  e_.lea(rbx, at(rbx, 0xfff));
  e_.bind(bytes);
}

void DescriptorParts::restore() {
  parts_.restore();
  e_.load(rbx, var(&state_.borrowed[0]));
}

void DescriptorParts::leave() {
  restore();
  e_.jmp_mem(at(r11, offsetof(ExitStub, hit)));
}

void DescriptorParts::end(u64 call) {
  leave();
  parts_.bind_slow();
  restore();
  e_.jmp(call);
}

void DescriptorParts::end_with_zero(u64 call) {
  constexpr u16 kZero = cpu::flag::zf << 8;  // as LAHF leaves it in AX
  e_.or_imm16(var(&state_.saved_flags), kZero);
  end(call);
}

}  // namespace trapline::engine::translate
