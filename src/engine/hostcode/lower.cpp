// The block: its head, each instruction by its treatment, and what stands behind it.
#include "engine/hostcode/lower.h"

#include <algorithm>

#include "base/invariant.h"
#include "cpu/fpu.h"
#include "engine/vector/op.h"

namespace trapline::engine::hostcode {

using Kind = isa::Operand::Kind;

void Lowering::insn(const TranslatedInsn& p) {
  draft_.insns.push_back({e_.size(), p.at});
  count_sensitive(p);
  islands(p.treatment == Treatment::nothing ? 0 : 56);
  switch (p.treatment) {
    case Treatment::plain:
    case Treatment::vector:
      if (is_mxcsr_load(p))
        load_mxcsr(p);
      else if (p.treatment == Treatment::vector && p.has_elements())
        each_element(p);
      else if (p.treatment == Treatment::vector && p.vector_is(vector::Kind::mask_move))
        masked_bytes(p);
      else if (!plain(p))
        step(p);
      break;
    case Treatment::x87:
      if (p.insn.mnemonic == ZYDIS_MNEMONIC_FLDCW)
        load_x87_control(p);
      else if (p.insn.mnemonic == ZYDIS_MNEMONIC_FNSTENV)
        store_environment(p);
      else if (p.insn.mnemonic == ZYDIS_MNEMONIC_FLDENV)
        load_environment(p);
      else if (p.vector_is(vector::Kind::mask_move))
        masked_bytes(p);
      else if (plain(p))
        note_x87(p);
      else
        step(p);
      break;
    case Treatment::nothing:
      break;
    case Treatment::special:
      special(p);
      break;
    case Treatment::branch:
      branch(p);
      break;
    case Treatment::trap:
      trap(p);
      break;
    case Treatment::semantic:
      call_out(p, ExitStub::Kind::semantic);
      break;
    case Treatment::unit:
      call_out(p, ExitStub::Kind::vector);
      break;
    case Treatment::step:
      step(p);
      break;
  }
}

void Lowering::head() {
  if (!context_.counted) return;
  ExitStub& s = site(ExitStub::Kind::limit, nullptr);
  s.rip = block_->key.linear.raw;
  e_.load(rcx, var(&state_.left));
  e_.lea(r10, at(rcx, -static_cast<i32>(block_->count)));
  static_assert(kLeftBias == u64{1} << 62);
  e_.mov_imm(rcx, 62);
  e_.shrx(rcx, r10, rcx);
  jump_cold_if_rcx_0({.site = &s});
  e_.store(var(&state_.left), r10);
}

void Lowering::finish() {
  flush_islands();
  for (std::size_t i = 0; i < taken_.size(); i++) {
    const Taken t = taken_[i];
    e_.bind(t.jump);
    exit_to(t.target, t.from, t.uncounted, t.before);
  }
  taken_.clear();
  ExitStub& stale = site(ExitStub::Kind::stale, nullptr);
  stale.rip = block_->key.linear.raw;
  stale.before = 0;
  block_->cold = block_->stale_stub = c_.pc();
  call_site(stale, {});
  for (const Cold& c : cold_) {
    e_.bind(c.jump, c_.pc());
    e_.note(Fixup::Kind::cold, c.jump.at, c_.size());
    if (c.tail != Cold::kNoTail)
      memory_.tail(*this, c.tail);
    else
      call_site(*c.site, c.place);
  }
  block_->cold_end = c_.pc();
  cold_.clear();
}

namespace {

bool uses_vectors(const TranslatedInsn& p) {
  return p.treatment == Treatment::vector ||
         (p.treatment == Treatment::x87 && static_cast<cpu::Unit>(p.vector.unit) == cpu::Unit::sse);
}

}  // namespace

bool Lowering::block(Block& block, const Context& context, const std::vector<TranslatedInsn>& pieces,
                     u32 island_margin) {
  block_ = &block;
  draft_.clear();
  island_margin_ = island_margin;
  context_ = context;
  ended_ = failed_ = false;
  index_ = 0;
  pending_.clear();
  cold_.clear();
  memory_.begin_block();
  taken_.clear();
  block.movable = context.movable;
  block.first_site = sites_.size();
  block.entry = e_.pc();
  head();
  if (std::any_of(pieces.begin(), pieces.end(), uses_vectors)) bring_vectors();
  pieces_ = &pieces;
  block.uses_x87 =
      std::any_of(pieces.begin(), pieces.end(), [](const TranslatedInsn& p) { return p.treatment == Treatment::x87; });
  if (block.uses_x87) bring_x87();
  for (index_ = 0; index_ < pieces.size() && !ended_; index_++) insn(pieces[index_]);
  if (!ended_) {
    const u64 next = block.key.linear.raw + block.bytes;
    exit_to(next, 0, 0, block.count);
  }
  finish();
  INVARIANT(pending_.empty() && taken_.empty() && cold_.empty(), "a jump of the block of {} leads nowhere",
            block.key.linear);
  block.end = e_.pc();
  block.sites = sites_.size() - block.first_site;
  return !failed_ && !e_.overflowed() && !c_.overflowed();
}

}  // namespace trapline::engine::hostcode
