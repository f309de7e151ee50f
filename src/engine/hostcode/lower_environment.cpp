// FNSTENV and FLDENV of 28 bytes: the host's, with the guest's pointers in place of its own (cpu/fpu_environment.cpp).
#include "cpu/fpu_state.h"
#include "engine/hostcode/lower.h"

namespace trapline::engine::hostcode {

namespace {

constexpr i32 kReserved = -0x10000;  // stored as ones

}  // namespace

// All exceptions are masked in x87 code that is in line, as they are behind it.
void Lowering::store_environment(const TranslatedInsn& p) {
  const cpu::X87State& x = cpu_.x87;
  const Mem m = memory_access(p, sizeof state_.environment, true);
  islands(56);
  e_.lea(r11, m);
  e_.fnstenv(var(&state_.environment));
  const auto to = [](i32 number) { return at(r11, number * 4); };
  for (i32 i = 0; i < 3; i++) {
    islands(56);
    e_.movzx16(rcx, var(&state_.environment[i]));
    e_.lea(rcx, at(rcx, kReserved), false);
    e_.store32(to(i), rcx);
  }
  islands(56);
  e_.load32(rcx, var(&x.fip));
  e_.store32(to(3), rcx);
  e_.movzx16(rcx, var(&x.fop));
  e_.rorx32(rcx, rcx, 16);
  const bool selectors = !cpu::x87_selectors_deprecated();
  if (selectors) {
    e_.movzx16(r10, var(&x.fcs));
    e_.lea(rcx, at(rcx, r10, 0), false);
  }
  e_.store32(to(4), rcx);
  islands(56);
  e_.load32(rcx, var(&x.fdp));
  e_.store32(to(5), rcx);
  if (selectors)
    e_.movzx16(rcx, var(&x.fds));
  else
    e_.mov_imm(rcx, 0);
  e_.lea(rcx, at(rcx, kReserved), false);
  e_.store32(to(6), rcx);
}

// Of what masks all exceptions, as the block's head has asked for. Else it is the interpreter's.
void Lowering::load_environment(const TranslatedInsn& p) {
  cpu::X87State& x = cpu_.x87;
  const Mem m = memory_access(p, sizeof state_.new_environment, false);
  islands(56);
  e_.lea(r11, m);
  const auto from = [](i32 at_byte) { return at(r11, at_byte); };
  const auto word = [&](i32 at_byte, const u16& to) {
    e_.movzx16(rcx, from(at_byte));
    e_.store16(var(&to), rcx);
  };
  e_.movzx16(rcx, from(0));
  e_.store32(var(&state_.new_environment[0]), rcx);
  test_x87_masks();
  const auto masked = e_.jrcxz();
  jump_cold(site(ExitStub::Kind::step, &p));
  e_.bind(masked);
  for (i32 i = 1; i < 3; i++) {
    islands(56);
    e_.movzx16(rcx, from(i * 4));
    e_.store32(var(&state_.new_environment[i]), rcx);
  }
  islands(56);
  e_.load32(rcx, from(12));
  e_.store(var(&x.fip), rcx);
  word(16, x.fcs);
  e_.movzx16(rcx, from(18));
  e_.mov_imm(r10, 0x7ff);
  islands(56);
  e_.pext(rcx, rcx, r10);
  e_.store16(var(&x.fop), rcx);
  e_.load32(rcx, from(20));
  e_.store(var(&x.fdp), rcx);
  islands(56);
  word(24, x.fds);
  e_.fldenv(var(&state_.new_environment));
}

}  // namespace trapline::engine::hostcode
