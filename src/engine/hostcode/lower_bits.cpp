// Accesses whose address is not an ordinary operand: XLAT, and bit tests with a bit number in a register.
#include <bit>

#include "engine/hostcode/lower.h"

namespace trapline::engine::hostcode {

// At R10, which the code from `start` on computes: it does so again after a miss.
Mem Lowering::linear_access(const TranslatedInsn& p, u64 start, unsigned size, bool write) {
  islands(56);
  ExitStub& s = site(ExitStub::Kind::miss, &p);
  s.resume = start;
  s.operand = Operand::linear;
  const Place place{.base = r10};
  return reach(place, size, write, {}, s);
}

void Lowering::xlat(const TranslatedInsn& p) {
  const u64 start = e_.pc();
  e_.movzx8(r10, rax);
  e_.lea(r10, at(r10, rbx, 0), context_.bits64);
  e_.load_sized(1, rax, linear_access(p, start, 1, false));
}

// BT, BTS, BTR, BTC m, r: the number counts from the operand's first bit, by its sign up or down.
void Lowering::bit_string(const TranslatedInsn& p) {
  const unsigned size = p.insn.operand_bytes;
  const unsigned bits = static_cast<unsigned>(std::countr_zero(size * 8));
  const u8 number = p.insn.op[1].reg;
  const u8 host = kHost[number];
  const auto sign_extended = [&](u8 to) { host == kNone ? e_.movsx(size, to, gpr(number)) : e_.movsx(size, to, host); };
  const u64 start = e_.pc();
  const Place place = place_of(p);
  if (place.base == kNone)
    e_.mov_imm(r10, place.address);
  else if (place.base != r10 || place.disp != 0)
    e_.lea(r10, at(place.base, place.disp));
  sign_extended(rcx);
  e_.mov_imm(r11, bits);
  e_.sarx(rcx, rcx, r11);
  e_.lea(r10, at(r10, rcx, static_cast<u8>(bits - 3)), context_.bits64 && p.insn.mem.address_bytes == 8);
  const bool write = p.insn.mnemonic != ZYDIS_MNEMONIC_BT;
  const Mem m = linear_access(p, start, size, write);
  // Of the number for a register operand only the low bits count.
  const BitTest test = p.insn.mnemonic == ZYDIS_MNEMONIC_BT    ? BitTest::bt
                       : p.insn.mnemonic == ZYDIS_MNEMONIC_BTS ? BitTest::bts
                       : p.insn.mnemonic == ZYDIS_MNEMONIC_BTR ? BitTest::btr
                                                               : BitTest::btc;
  e_.lea(r10, m);
  sign_extended(rcx);
  if (p.insn.lock) {
    e_.mov_imm(r11, 64 - bits);
    e_.shlx(rcx, rcx, r11);
    e_.shrx(rcx, rcx, r11);
    e_.lock();
    e_.bit_test(test, size, at(r10), rcx);
    return;
  }
  e_.load_sized(size, r11, at(r10));
  e_.bit_test(test, size, r11, rcx);
  if (write) e_.store_sized(size, at(r10), r11);
}

}  // namespace trapline::engine::hostcode
