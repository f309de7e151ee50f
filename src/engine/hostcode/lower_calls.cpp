// Ways out of a block into C++: exit stubs, calls of semantics and of the vector unit, the interpreter's instructions;
// and the cold code that each stub has.
#include <optional>

#include "base/invariant.h"
#include "engine/common/sensitive_counts.h"
#include "engine/hostcode/lower.h"

namespace trapline::engine::hostcode {

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
  if (over && !e_.try_bind(*over)) failed_ = true;
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
  e_.hlt();
  step(p);
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

// For a store over the end of a page: the instruction once more, between the thunk that has led it elsewhere and the one
// that puts its bytes in their two places.
void Lowering::copy_store(ExitStub& s, const Place& place) {
  if (e_.overflowed()) return;  // nothing comes of the block
  const u64 from = s.patch - block_->entry, back = s.patch + s.copy_bytes;
  INVARIANT(from + s.copy_bytes <= e_.size(), "the store at {:#x} is not of the block of {}", s.rip,
            block_->key.linear);
  s.patch = 0;
  s.hit = c_.pc();
  if (s.in_r10) c_.lea(r10, at(place.base, rcx, 0));
  c_.append({e_.data() + from, s.copy_bytes});
  from_cold(c_.lea_of(r11), back);
  c_.jmp(memory_.put_back(s));
}

void Lowering::call_site(ExitStub& s, const Place& place) {
  INVARIANT(s.block == block_ && s.number >= block_->first_site, "the block of {} calls by the exit stub of {:#x}",
            block_->key.linear, s.rip);
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

}  // namespace trapline::engine::hostcode
