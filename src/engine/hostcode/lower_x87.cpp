// x87 and MMX code: the registers are there, and FIP, FDP and FOP are those of its last instruction.
#include "engine/hostcode/lower.h"

#include <algorithm>

#include "engine/vector/op.h"

namespace trapline::engine::hostcode {

using cpu::Seg;

// At a block's head: the registers are brought if they are parked.
void Lowering::bring_x87() {
  ExitStub& parked = site(ExitStub::Kind::x87, nullptr);
  parked.rip = block_->key.linear.raw;
  parked.resume = e_.pc();
  e_.movzx8(rcx, var(&cpu_.x87.live));
  jump_cold_if_rcx_0({.site = &parked});
  // With an exception unmasked, FOP and FDP would matter: the interpreter's.
  ExitStub& unmasked = site(ExitStub::Kind::step, nullptr);
  unmasked.rip = block_->key.linear.raw;
  e_.fnstcw(var(&state_.tmp));
  e_.movzx8(rcx, var(&state_.tmp));
  test_x87_masks();
  const auto masked = e_.jrcxz();
  jump_cold(unmasked);
  e_.bind(masked);
}

// CX has a control word: RCX becomes 0 if it masks all exceptions.
void Lowering::test_x87_masks() {
  e_.lea(rcx, at(kNone, rcx, 2), false);
  e_.movzx8(rcx, rcx);  // the six masks, in the upper bits of CL
  e_.lea(rcx, at(rcx, -0xfc));
}

// FLDCW of what masks all exceptions, as the block's head has asked for. Else it is the interpreter's.
void Lowering::load_x87_control(const TranslatedInsn& p) {
  e_.movzx16(rcx, memory_access(p, 2, false));
  e_.store32(var(&state_.tmp), rcx);
  test_x87_masks();
  const auto masked = e_.jrcxz();
  jump_cold(site(ExitStub::Kind::step, &p));
  e_.bind(masked);
  e_.fldcw(var(&state_.tmp));
}

// The last x87 instruction before its pointers are stored to memory, or the block may be left for good without a call.
bool Lowering::last_x87() const {
  for (std::size_t i = index_ + 1u; i < pieces_->size(); i++) {
    const TranslatedInsn& p = (*pieces_)[i];
    if (p.treatment == Treatment::branch || p.insn.mnemonic == ZYDIS_MNEMONIC_FNSTENV) return true;
    if (p.treatment == Treatment::x87 && p.vector.flags & vector::flag::pointers) return false;
  }
  return true;
}

// The address of its operand: the instruction has changed no register that is part of it.
void Lowering::store_fdp(const TranslatedInsn& p) {
  islands(56);
  const Place place = place_of(p);
  if (place.base == kNone)
    e_.mov_imm(r10, place.address);
  else if (place.base != r10 || place.disp != 0)
    e_.lea(r10, at(place.base, place.disp));
  e_.store(var(&cpu_.x87.fdp), r10);
}

// The pointers that the instruction leaves behind. FDP is stored at once; where the block goes on to another x87
// instruction, calls in between find the others by Block::x87.
void Lowering::note_x87(const TranslatedInsn& p) {
  if (!(p.vector.flags & vector::flag::pointers)) return;
  const u64 rip = block_->key.linear.raw + p.at;
  const bool all = !(p.vector.flags & vector::flag::fdp_on_exception_only);
  const bool memory = all && p.vector.mem_bytes != 0;
  if (memory) store_fdp(p);
  draft_.x87.push_back(
      {rip, index_, p.vector.fop, all, memory ? static_cast<u8>(p.insn.mem.seg) : Block::Pointer::kNoMemory});
  if (!last_x87()) return;
  const auto store16 = [&](const u16& to) { e_.store16(var(&to), r11); };
  const auto selector = [&](u8 segment) { e_.movzx16(r11, var(&cpu_.seg[segment].selector)); };
  islands(56);
  linear(r11, rip);
  e_.store(var(&cpu_.x87.fip), r11);
  selector(static_cast<u8>(Seg::cs));
  store16(cpu_.x87.fcs);
  if (!all) return;
  islands(56);
  e_.mov_imm(r11, p.vector.fop);
  store16(cpu_.x87.fop);
  const auto last = std::find_if(draft_.x87.rbegin(), draft_.x87.rend(),
                                 [](const Block::Pointer& x) { return x.segment != Block::Pointer::kNoMemory; });
  if (last == draft_.x87.rend()) return;
  selector(last->segment);
  store16(cpu_.x87.fds);
}

}  // namespace trapline::engine::hostcode
