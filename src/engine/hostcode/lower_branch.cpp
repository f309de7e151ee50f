#include <bit>

#include "base/invariant.h"
#include "engine/hostcode/lower.h"

namespace trapline::engine::hostcode {

using Kind = isa::Operand::Kind;

namespace {

constexpr i32 kJumpOffset = JumpCache::offset(Gva{});
using F = Fixup::Kind;

}  // namespace

// -- Leaving the block
void Lowering::poll(u64 target, u16 before) {
  ExitStub& s = site(ExitStub::Kind::poll, nullptr);
  s.rip = target;
  s.before = before;
  look_at_attention(s);
}

void Lowering::look_at_attention(ExitStub& s) {
  e_.mov_imm(rcx, reinterpret_cast<u64>(cpu_.attention));
  e_.load32(rcx, at(rcx));
  const auto nobody = e_.jrcxz();
  jump_cold(s);
  e_.bind(nobody);
}

// May a jump lead straight there? What begins near the end of a page may need the next one too.
bool Lowering::linkable(u64 target) const {
  if (context_.stable && target >> 63) return true;
  const Gva page = Gva{target}.page();
  const bool may_cross = Gva{target} - page > kPageSize - kLongest;
  if (page == context_.page) return !may_cross || context_.page2 != Context::kNoPage;
  return page == context_.page2 && !may_cross;
}

// A jump that leads into C++ until it is linked.
void Lowering::link_from(Emitter::Far jump, ExitStub& s) {
  s.patch = e_.address_of(jump.at);
  to_cold(jump, {.site = &s});
}

// `uncounted`: instructions of the block that will not retire, given back to the budget.
void Lowering::exit_to(u64 target, u64 from, u16 uncounted, u16 before, bool turned) {
  target &= mask();
  if (uncounted && context_.counted) {
    e_.load(r10, var(&state_.left));
    e_.lea(r10, at(r10, uncounted));
    e_.store(var(&state_.left), r10);
  }
  // What is given back counts as retired for who reads the budget: the block's count minus `uncounted` is `before`.
  INVARIANT(before <= block_->count && (!uncounted || before + uncounted == block_->count),
            "a way out of the block of {} behind {} of {} instructions that gives {} back", block_->key.linear, before,
            block_->count, uncounted);
  const u16 counted = uncounted ? block_->count : before;
  if (target <= from) poll(target, counted);
  INVARIANT(!turned || context_.turned.tag < JumpCache::kTags, "the block of {} ends in a mode that it does not know",
            block_->key.linear);
  if (linkable(target)) {
    ExitStub& s = site(ExitStub::Kind::link, nullptr);
    s.rip = target;
    s.before = counted;
    s.turned = turned;
    return link_from(e_.jmp_far(), s);
  }
  ExitStub& s = site(ExitStub::Kind::indirect, nullptr);
  s.before = counted;
  s.rip = from;
  linear(r10, target);
  Mem slot = memory_.jump_slot(e_, {.disp = JumpCache::offset(Gva{target})}, r11);
  e_.load(rcx, slot);
  e_.note(F::jump, e_.size() - 4, target);
  e_.lea(rcx, at(rcx, r10, 0, turned ? context_.turned.tag : context_.tag));
  const auto known = e_.jrcxz();
  jump_cold(s);
  e_.bind(known);
  slot.disp += 8;
  e_.jmp_mem(slot);
  e_.note(F::jump_entry, e_.size() - 4, target);
}

// To the address in R10.
void Lowering::jump_indirect(i8 undo_rsp, const TranslatedInsn& p) {
  const auto stub = [&](bool asked) -> ExitStub& {
    ExitStub& s = site(ExitStub::Kind::indirect, &p);
    s.before = static_cast<u16>(index_ + 1);
    s.undo_rsp = undo_rsp;
    s.asked = asked;
    return s;
  };
  look_at_attention(stub(true));
  ExitStub& s = stub(false);
  if (ways_.pext) {
    e_.pext(rcx, r10, var(&state_.jump_bits));
  } else {
    static_assert(std::has_single_bit(JumpCache::kSlots));
    constexpr unsigned kBits = std::countr_zero(JumpCache::kSlots);
    e_.rorx(rcx, r10, kBits);
    e_.mov_imm(r11, 64 - kBits);
    e_.shrx(rcx, rcx, r11);
  }
  e_.lea(rcx, at(rcx, rcx, 0));
  Mem slot = memory_.jump_slot(e_, at(kNone, rcx, 3, kJumpOffset + 8), r11);
  e_.load(r11, slot);
  slot.disp = kJumpOffset;
  e_.load(rcx, slot);
  e_.lea(rcx, at(rcx, r10, 0, context_.tag));
  const auto known = e_.jrcxz();
  jump_cold(s);
  e_.bind(known);
  e_.jmp_reg(r11);
}

// The return address onto the stack. AMD's processors write nothing if the target turns out not to be canonical: what
// was there is kept for who finds that out.
void Lowering::push_return(const TranslatedInsn& p) {
  const u8 size = stack_bytes();
  const Mem top = stack_access(p, true, size);
  if (size == 8 && p.insn.op[0].kind != Kind::imm && cpu_.vendor() == isa::Vendor::amd) {
    e_.load(r11, top);
    e_.store(var(&state_.below_rsp), r11);
  }
  const u64 next = next_of(p);
  if (size == 4 || next == static_cast<u64>(static_cast<i64>(static_cast<i32>(next)))) {
    e_.store_imm32(top, static_cast<u32>(next), size == 8);
  } else {
    linear(r11, next);
    e_.store(top, r11);
  }
  move_rsp(-size);
}

// JMP and CALL: to an immediate, or to what a register or memory holds.
void Lowering::jump_or_call(const TranslatedInsn& p) {
  const isa::Insn& i = p.insn;
  const bool call = i.mnemonic == ZYDIS_MNEMONIC_CALL;
  const u8 size = stack_bytes();
  ended_ = true;
  if (i.op[0].kind == Kind::imm) {
    if (call) push_return(p);
    return exit_to(next_of(p) + i.imm, block_->key.linear.raw + p.at, 0, static_cast<u16>(index_ + 1));
  }
  if (i.op[0].kind == Kind::mem) {
    e_.load_sized(size, r10, memory_access(p, size, false));
    if (call) e_.store(var(&state_.tmp), r10);
  }
  if (call) push_return(p);
  if (i.op[0].kind == Kind::mem) {
    if (call) e_.load(r10, var(&state_.tmp));
  } else if (kHost[i.op[0].reg] != kNone) {
    e_.mov(r10, kHost[i.op[0].reg], size == 8);
  } else {
    e_.load(r10, gpr(i.op[0].reg));
  }
  jump_indirect(call ? -static_cast<i8>(size) : 0, p);
}

void Lowering::ret(const TranslatedInsn& p) {
  const u8 size = stack_bytes();
  ended_ = true;
  e_.load_sized(size, r10, stack_access(p, false, size));
  move_rsp(size);
  jump_indirect(static_cast<i8>(size), p);
}

// The way out of a conditional branch, from `jump` on; the block goes on behind it.
void Lowering::take(const TranslatedInsn& p, Emitter::Far jump) {
  const u16 after = static_cast<u16>(index_ + 1);
  taken_.push_back(
      {jump, next_of(p) + p.insn.imm, block_->key.linear.raw + p.at, static_cast<u16>(block_->count - after), after});
}

// LOOP, LOOPE, LOOPNE: taken while RCX, counted down, is not 0.
void Lowering::loop(const TranslatedInsn& p) {
  e_.lea(r15, at(r15, -1), p.insn.address_bytes == 8);
  e_.mov(rcx, r15);
  const auto done = e_.jrcxz();
  if (p.insn.mnemonic == ZYDIS_MNEMONIC_LOOP)
    take(p, e_.jmp_far());
  else
    take(p, e_.jcc(p.insn.mnemonic == ZYDIS_MNEMONIC_LOOPE ? Condition::zero : Condition::not_zero));
  e_.bind(done);
}

// JRCXZ and JECXZ have no long form.
void Lowering::jump_if_rcx_0(const TranslatedInsn& p) {
  p.insn.address_bytes == 8 ? e_.mov(rcx, r15) : e_.mov32(rcx, r15);
  const auto zero = e_.jrcxz();
  const auto over = e_.jmp_near();
  e_.bind(zero);
  take(p, e_.jmp_far());
  e_.bind(over);
}

void Lowering::jcc(const TranslatedInsn& p) {
  const u64 from = block_->key.linear.raw + p.at, target = next_of(p) + p.insn.imm;
  const u16 after = static_cast<u16>(index_ + 1);
  const auto condition = static_cast<Condition>(p.raw.insn.opcode & 15);
  if (target <= from) {  // a loop goes on: one jump less than the other way round
    const auto over = e_.jcc(opposite(condition));
    exit_to(target, from, static_cast<u16>(block_->count - after), after);
    flush_islands();
    e_.bind(over);
    return;
  }
  if (context_.counted || !linkable(target & mask())) return take(p, e_.jcc(condition));
  // Nothing to account for: the branch itself is the link.
  ExitStub& s = site(ExitStub::Kind::link, nullptr);
  s.rip = target & mask();
  s.before = after;
  link_from(e_.jcc(condition), s);
}

void Lowering::branch(const TranslatedInsn& p) {
  switch (p.insn.mnemonic) {
    case ZYDIS_MNEMONIC_JMP:
    case ZYDIS_MNEMONIC_CALL:
      return jump_or_call(p);
    case ZYDIS_MNEMONIC_RET:
      return ret(p);
    case ZYDIS_MNEMONIC_JRCXZ:
    case ZYDIS_MNEMONIC_JECXZ:
      return jump_if_rcx_0(p);
    case ZYDIS_MNEMONIC_LOOP:
    case ZYDIS_MNEMONIC_LOOPE:
    case ZYDIS_MNEMONIC_LOOPNE:
      return loop(p);
    default:
      return jcc(p);
  }
}

}  // namespace trapline::engine::hostcode
