// The block: its head, each instruction by its treatment, calls of C++, and what stands behind it.
#include "engine/hostcode/lower.h"

#include <algorithm>
#include <optional>

#include "cpu/fpu.h"
#include "engine/common/sensitive_counts.h"
#include "engine/vector/op.h"

namespace trapline::engine::hostcode {

using Kind = isa::Operand::Kind;

ExitStub& Lowering::site(ExitStub::Kind kind, const TranslatedInsn* piece) {
  ExitStub& s = sites_.emplace_back();
  s.kind = kind;
  s.block = block_;
  s.number = sites_.size() - 1;
  s.before = index_;
  if (piece) {
    s.rip = block_->key.linear.raw + piece->at;
    s.mem = piece->insn.mem;
    s.length = piece->insn.length;
  }
  return s;
}

ExitStub& Lowering::called_site(const TranslatedInsn& p, ExitStub::Kind kind) {
  ExitStub& s = site(kind, &p);
  s.semantic = p.semantic;
  s.called = &called_.emplace_back(Called{p.insn, p.vector});
  s.ends = p.ends;
  return s;
}

void Lowering::call_out(const TranslatedInsn& p, ExitStub::Kind kind) {
  ExitStub& s = called_site(p, kind);
  std::optional<Emitter::Near> over;
  StringForm form;
  s.by_thunk = kind == ExitStub::Kind::semantic && string_form(p.insn, context_.bits64, &form) &&
               memory_.thunk(s, context_.bits64) != 0;
  if (s.by_thunk) {
    context_.bits64 ? e_.mov(rcx, r15) : e_.mov32(rcx, r15);
    over = e_.jrcxz();
  }
  jump_cold(s);
  flush_islands();
  if (over) {
    failed_ |= !e_.reaches(*over);
    e_.bind(*over);
  }
  s.resume = e_.pc();
  ended_ = p.ends;
}

void Lowering::step(const TranslatedInsn& p) {
  jump_cold(site(ExitStub::Kind::step, &p));
  flush_islands();
  ended_ = true;
}

// HLT is privileged, has one byte, and its fault names it. Nobody comes behind it: the jump is there because a block may
// be as short as this, and a stale one begins with a jump.
void Lowering::trap(const TranslatedInsn& p) {
  e_.put(kTrap);
  step(p);
}

void Lowering::special(const TranslatedInsn& p) {
  switch (p.insn.mnemonic) {
    case ZYDIS_MNEMONIC_PUSH:
      return push(p);
    case ZYDIS_MNEMONIC_POP:
      return pop(p);
    case ZYDIS_MNEMONIC_LEAVE:
      return leave(p);
    case ZYDIS_MNEMONIC_ENTER:
      return enter(p);
    case ZYDIS_MNEMONIC_MOV:
      if (p.insn.op[0].kind == Kind::seg) return read_descriptor(p);
      return p.insn.op[1].kind == Kind::seg ? move_selector(p) : move_offset(p);
    case ZYDIS_MNEMONIC_LAR:
    case ZYDIS_MNEMONIC_LSL:
    case ZYDIS_MNEMONIC_VERR:
    case ZYDIS_MNEMONIC_VERW:
      return read_descriptor(p);
    case ZYDIS_MNEMONIC_PUSHFD:
    case ZYDIS_MNEMONIC_PUSHFQ:
      return push_flags(p);
    case ZYDIS_MNEMONIC_POPFD:
    case ZYDIS_MNEMONIC_POPFQ:
      return pop_flags(p);
    case ZYDIS_MNEMONIC_CLI:
    case ZYDIS_MNEMONIC_STI:
      return set_interrupts(p);
    case ZYDIS_MNEMONIC_CLD:
    case ZYDIS_MNEMONIC_STD:
      return set_direction(p.insn.mnemonic == ZYDIS_MNEMONIC_STD);
    case ZYDIS_MNEMONIC_SWAPGS:
      return swap_gs();
    case ZYDIS_MNEMONIC_RDFSBASE:
    case ZYDIS_MNEMONIC_RDGSBASE:
    case ZYDIS_MNEMONIC_WRFSBASE:
    case ZYDIS_MNEMONIC_WRGSBASE:
      return segment_base(p);
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDTSCP:
      return read_tsc(p);
    case ZYDIS_MNEMONIC_XGETBV:
      return read_xcr0(p);
    case ZYDIS_MNEMONIC_CPUID:
      return identify(p);
    case ZYDIS_MNEMONIC_PAUSE:
      return pause(p);
    case ZYDIS_MNEMONIC_XLAT:
      return xlat(p);
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTS:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTC:
      return bit_string(p);
    default:
      break;
  }
  StringForm form;
  return string_form(p.insn, context_.bits64, &form) ? string_once(p, form) : step(p);
}

// Calls count themselves (Translator::call_out), and the interpreter what is left to it.
void Lowering::count_sensitive(const TranslatedInsn& p) {
  switch (p.treatment) {
    case Treatment::trap:
    case Treatment::semantic:
    case Treatment::unit:
    case Treatment::step:
      return;
    default:
      break;
  }
  const u64* const number = sensitive_count(cpu_, p.insn, Way::inlined);
  if (!number) return;
  islands(32);
  e_.mov_imm64(rcx, reinterpret_cast<u64>(number));
  e_.load(r10, at(rcx));
  e_.lea(r10, at(r10, 1));
  e_.store(at(rcx), r10);
}

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

// For a store over the end of a page: the instruction once more, between the thunk that has led it elsewhere and the one
// that puts its bytes in their two places.
void Lowering::copy_store(ExitStub& s, const Place& place) {
  const u64 from = s.patch - block_->entry, back = s.patch + s.copy_bytes;
  s.patch = 0;
  s.hit = c_.pc();
  if (s.in_r10) c_.lea(r10, at(place.base, rcx, 0));
  c_.append({e_.data() + from, s.copy_bytes});
  c_.put(0x4C, 0x8D, 0x1D);  // LEA R11, back
  c_.note(Fixup::Kind::hot, c_.size(), back - block_->entry);
  c_.imm32(back - (c_.pc() + 4));
  c_.jmp(memory_.put_back(s));
}

void Lowering::call_site(ExitStub& s, const Place& place) {
  u64 thunk = s.kind == ExitStub::Kind::miss || s.by_thunk ? memory_.thunk(s, context_.bits64) : 0;
  if (s.kind == ExitStub::Kind::indirect && !s.asked) {
    c_.lea(rcx, at(r10, context_.tag));
    thunk = thunks_.indirect;
  } else if (s.by_thunk && s.called->insn.mnemonic == ZYDIS_MNEMONIC_CPUID) {
    thunk = thunks_.cpuid;
  } else if (s.kind == ExitStub::Kind::miss && thunk) {
    c_.lea(rcx, at(place.base, place.disp));
  }
  c_.mov_imm64(r11, reinterpret_cast<u64>(&s));
  c_.note(Fixup::Kind::site, c_.size() - 8, s.number);
  c_.jmp(thunk ? thunk : thunks_.call);
  if (s.kind == ExitStub::Kind::miss && s.write && thunk) copy_store(s, place);
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
    e_.patch32(c.at, c_.pc() - (e_.pc() - e_.size() + c.at + 4));
    e_.note(Fixup::Kind::cold, c.at, c_.size());
    if (c.tail != Cold::kNoTail)
      memory_.tail(*this, c.tail);
    else
      call_site(*c.site, c.place);
  }
  block_->cold_end = c_.pc();
  cold_.clear();
}

// Where the vector registers are elsewhere, they come back first.
void Lowering::bring_vectors() {
  e_.load(rcx, var(&state_.vec_live));
  const auto elsewhere = e_.jrcxz();
  const auto there = e_.jmp_near();
  e_.bind(elsewhere);
  const auto back = e_.lea_of(r11);
  e_.jmp(thunks_.load_vec);
  e_.bind(back);
  e_.bind(there);
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
  block.end = e_.pc();
  block.sites = sites_.size() - block.first_site;
  return !failed_ && !e_.overflowed() && !c_.overflowed();
}

}  // namespace trapline::engine::hostcode
