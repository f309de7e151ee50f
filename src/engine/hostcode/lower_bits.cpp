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
  e_.op(0, false, 0x0FB6, r10, rax);  // MOVZX R10D, AL
  e_.lea(r10, at(r10, rbx, 0), context_.bits64);
  e_.op(0, false, 0x8A, rax, linear_access(p, start, 1, false));
}

// BT, BTS, BTR, BTC m, r: the number counts from the operand's first bit, by its sign up or down.
void Lowering::bit_string(const TranslatedInsn& p) {
  const unsigned size = p.insn.operand_bytes;
  const unsigned bits = static_cast<unsigned>(std::countr_zero(size * 8));
  const u8 number = p.insn.op[1].reg;
  const u8 host = kHost[number];
  const auto sign_extended = [&](u8 to) {  // MOVSX, MOVSXD, MOV
    const unsigned opcode = size == 2 ? 0x0FBF : size == 4 ? 0x63 : 0x8B;
    host == kNone ? e_.op(0, true, opcode, to, gpr(number)) : e_.op(0, true, opcode, to, host);
  };
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
  const unsigned prefix = size == 2 ? 0x66 : 0;
  // The opcodes with a register as the number; of a register operand only its low bits count.
  const unsigned opcode = p.insn.mnemonic == ZYDIS_MNEMONIC_BT    ? 0x0FA3
                          : p.insn.mnemonic == ZYDIS_MNEMONIC_BTS ? 0x0FAB
                          : p.insn.mnemonic == ZYDIS_MNEMONIC_BTR ? 0x0FB3
                                                                  : 0x0FBB;
  e_.lea(r10, m);
  sign_extended(rcx);
  if (p.insn.lock) {
    e_.mov_imm(r11, 64 - bits);
    e_.shlx(rcx, rcx, r11);
    e_.shrx(rcx, rcx, r11);
    e_.byte(0xF0);
    e_.op(prefix, size == 8, opcode, rcx, at(r10));
    return;
  }
  e_.op(prefix, size == 8, 0x8B, r11, at(r10));
  e_.op(prefix, size == 8, opcode, rcx, r11);
  if (write) e_.op(prefix, size == 8, 0x89, r11, at(r10));
}

}  // namespace trapline::engine::hostcode
