#include "base/invariant.h"
#include "engine/hostcode/lower.h"

namespace trapline::engine::hostcode {

using cpu::Seg;

// -- Ways to code that is seldom run. It stands behind the block; JRCXZ reaches 127 bytes, so islands of jumps are put
// in between.
void Lowering::to_cold(Emitter::Far jump, const Cold& c) {
  cold_.push_back(c);
  cold_.back().jump = jump;
}

void Lowering::jump_cold(ExitStub& s) { to_cold(e_.jmp_far(), {.site = &s}); }

void Lowering::jump_hot(u64 to) { from_cold(c_.jmp_far(), to); }

void Lowering::from_cold(Emitter::Far jump, u64 to) {
  c_.note(Fixup::Kind::hot, jump.at, to - block_->entry);
  c_.bind(jump, to);
}

void Lowering::jump_cold_if_rcx_0(const Cold& c) { pending_.push_back({c, e_.jrcxz()}); }

void Lowering::flush_islands() {
  for (const auto& [cold, jump] : pending_) {
    if (!e_.try_bind(jump)) failed_ = true;
    to_cold(e_.jmp_far(), cold);
  }
  pending_.clear();
}

// An island goes here if the first waiting jump would be out of reach after the next `ahead` bytes.
void Lowering::islands(u32 ahead) {
  if (pending_.empty() || e_.size() - pending_.front().second.at + ahead + island_margin_ < 120) return;
  const auto over = e_.jmp_near();
  flush_islands();
  e_.bind(over);
}

// -- Addresses
// The register of a general register's value, for use in an address.
u8 Lowering::host_or_load(u8 guest, u8 scratch) {
  if (kHost[guest] != kNone) return kHost[guest];
  e_.load(scratch, gpr(guest));
  return scratch;
}

// A linear address that moves with the code.
void Lowering::linear(u8 reg, u64 value) {
  if (!context_.movable) return e_.mov_imm(reg, value);
  e_.mov_imm64(reg, value);
  e_.note(Fixup::Kind::linear, e_.size() - 8, value);
}

Place Lowering::constant_place(u64 address, bool moves) {
  if (moves && context_.movable) {
    linear(r10, address);
    return {.base = r10, .constant = true, .linear = true, .address = address};
  }
  if (address == static_cast<u64>(static_cast<i64>(static_cast<i32>(address))))
    return {.base = kNone, .disp = static_cast<i32>(address), .constant = true, .address = address};
  e_.mov_imm(r10, address);
  return {.base = r10, .constant = true, .address = address};
}

// Of insn.mem. Clobbers R11; what is in R10 must stay there until the access.
Place Lowering::place_of(const TranslatedInsn& p) {
  const isa::MemOperand& m = p.insn.mem;
  const bool wide = m.address_bytes == 8;
  const bool based = m.seg == Seg::fs || m.seg == Seg::gs;
  const bool rip = m.base == isa::kRegRip;
  if (rip || (m.base == isa::kNoReg && m.index == isa::kNoReg)) {
    const u64 a = (static_cast<u64>(m.disp) + (rip ? next_of(p) : 0)) & (wide ? ~u64{0} : 0xffffffff);
    if (rip && !wide) block_->movable = false;
    if (!based) return constant_place(a, rip && wide);
    if (rip && wide)
      linear(r10, a);
    else
      e_.mov_imm(r10, a);
  } else {
    const u8 base = m.base == isa::kNoReg ? kNone : host_or_load(m.base, r10);
    const u8 index = m.index == isa::kNoReg ? kNone : host_or_load(m.index, r11);
    const i64 disp = m.disp + popped_;
    const i32 disp32 = static_cast<i32>(disp);
    INVARIANT(disp32 == disp, "the operand at {:#x} lies {:#x} from its register", block_->key.linear.raw + p.at, disp);
    if (wide && !based && index == kNone) return {.base = base, .disp = disp32};
    e_.lea(r10, at(base, index, m.scale_log2, disp32), wide);
  }
  if (based) {
    e_.load(r11, var(&cpu_.segment(m.seg).linear_base));
    e_.lea(r10, at(r10, r11, 0), context_.bits64);
  }
  return {.base = r10};
}

// RSP + disp.
Place Lowering::stack_place(i32 disp) {
  if (context_.bits64) return {.base = rsp, .disp = disp};
  e_.lea(r10, at(rsp, disp), false);
  return {.base = r10};
}

// Where the instruction's memory operand is, once RCX holds what to add.
Mem Lowering::memory_access(const TranslatedInsn& p, unsigned size, bool write) {
  ExitStub& s = site(ExitStub::Kind::miss, &p);
  s.resume = e_.pc();
  s.mem.disp += popped_;
  const Place place = place_of(p);
  return reach(place, size, write, p.memory, s);
}

// The stack's new or present top.
Mem Lowering::stack_access(const TranslatedInsn& p, bool push, unsigned size) {
  ExitStub& s = site(ExitStub::Kind::miss, &p);
  s.resume = e_.pc();
  s.operand = push ? Operand::push : Operand::pop;
  const Place place = stack_place(push ? -static_cast<i32>(size) : 0);
  return reach(place, size, push, p.stack, s);
}

Mem Lowering::reach(const Place& place, unsigned size, bool write, const SharedLookup& share, ExitStub& s) {
  s.size = static_cast<u8>(size);
  s.write = write;
  memory_.reach(*this, place, size, write, share, s);
  return memory_.reached(place);
}

void Lowering::move_rsp(i32 by) { e_.lea(rsp, at(rsp, by), context_.bits64); }

}  // namespace trapline::engine::hostcode
