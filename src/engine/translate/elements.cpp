#include "engine/translate/elements.h"

#include <cstddef>
#include <iterator>
#include <vector>

#include "engine/hostcode/exit_stub.h"
#include "engine/hostcode/thunks.h"
#include "engine/vector/op.h"

namespace trapline::engine::translate {

using namespace hostcode;
using Elements = State::Elements;

namespace {

constexpr u8 kBorrowed[] = {rbx, rsi, rdi, r8, r9};
static_assert(std::size(kBorrowed) <= std::size(State{}.borrowed));

constexpr i32 kIndex = offsetof(Elements, index), kData = offsetof(Elements, data), kTo = offsetof(Elements, to);

void tzcnt(Emitter& e, u8 to, u8 from) { e.op(0xF3, true, 0x0FBC, to, from); }
void clear_lowest(Emitter& e, u8 reg) { e.vex(2, 0, true, reg, 0xF3, 1, reg); }  // BLSR

void jump_back(Emitter& e, Condition c, u64 to) {
  const Emitter::Far jump = e.jcc(c);
  e.patch32(jump.at, static_cast<u32>(to - e.pc()));
}

}  // namespace

void ElementThunks::emit(Emitter& out, State& state, const HostWays& ways, u64 call) {
  for (const bool scatter : {false, true})
    for (const bool wide_index : {false, true})
      for (const bool wide_element : {false, true})
        for (const bool wide_address : {false, true}) {
          const Form form{scatter, wide_index, wide_element, wide_address};
          at_[form.number()] = out.pc();
          emit_one(out, state, ways, form, call);
        }
}

u64 ElementThunks::of(const VectorOp& op, u8 address_bytes) const {
  const auto kind = static_cast<vector::Kind>(op.kind);
  if (kind != vector::Kind::gather && kind != vector::Kind::scatter) return 0;
  const Form form{kind == vector::Kind::scatter, op.index_bytes == 8, op.element_bytes == 8, address_bytes == 8};
  return at_[form.number()];
}

// RAX: elements to be looked up. R9: State::elements. R8: the table. RCX: the scale. RDX: the element's number.
void ElementThunks::emit_one(Emitter& e, State& state, const HostWays& ways, Form form, u64 call) {
  constexpr u8 kUp = 16, kDown = 28;  // of an address, for its page's number
  const u8 size = form.wide_element ? 8 : 4;
  std::vector<Emitter::Far> slow;
  const auto slow_if = [&](Condition c) { slow.push_back(e.jcc(c)); };
  e.store(var(&state.saved_rax), rax);
  e.store(var(&state.saved_rdx), rdx);
  for (unsigned i = 0; i < std::size(kBorrowed); i++) e.store(var(&state.borrowed[i]), kBorrowed[i]);
  save_flags(e, state.saved_flags);
  e.lea(r9, var(&state.elements));
  e.movzx8(rcx, at(r11, static_cast<i32>(offsetof(ExitStub, mem) + offsetof(isa::MemOperand, scale_log2))));
  e.load(r8, var(form.scatter ? &state.write_table : &state.tables));
  if (form.scatter && ways.gs_base) e.op(0, true, 0x03, r8, var(&state.tables));  // ADD: it is counted from there
  e.load(rax, at(r9, offsetof(Elements, active)));
  e.op(0, true, 0x23, rax, at(r9, offsetof(Elements, exist)));  // AND
  if (form.scatter) e.store(at(r9, offsetof(Elements, active)), rax);
  e.test(rax, rax);
  const Emitter::Far none = e.jcc(Condition::zero);

  const u64 look = e.pc();
  tzcnt(e, rdx, rax);
  e.op(0, true, form.wide_index ? 0x8B : 0x63, rsi, at(r9, rdx, form.wide_index ? 3 : 2, kIndex));  // MOV, MOVSXD
  e.shlx(rsi, rsi, rcx);
  e.lea(rsi, at(rsi, r10, 0), form.wide_address);
  e.mov(rbx, rsi);
  e.shl(rbx, kUp);
  if (form.wide_address) {  // a look-up finds the entry of the canonical address
    e.mov(rdi, rbx);
    e.sar(rdi, kUp);
    e.cmp(rdi, rsi);
    slow_if(Condition::not_zero);
  }
  e.shr(rbx, kDown);
  e.lea(rdi, at(rsi, size - 1));
  e.shl(rdi, kUp);
  e.shr(rdi, kDown);
  e.add(rdi, rbx);
  e.load(rdi, at(r8, rdi, 3));
  e.test(rdi, rdi);
  slow_if(Condition::zero);
  if (form.scatter) {
    e.add(rdi, rsi);
    e.store(at(r9, rdx, 3, kTo), rdi);
  } else {
    e.op(0, form.wide_element, 0x8B, rdi, at(rdi, rsi, 0));
    e.op(0, form.wide_element, 0x89, rdi, at(r9, rdx, form.wide_element ? 3 : 2, kData));
  }
  clear_lowest(e, rax);
  jump_back(e, Condition::not_zero, look);

  if (form.scatter) {  // from the lowest on: they may overlap
    e.load(rax, at(r9, offsetof(Elements, active)));
    const u64 next = e.pc();
    tzcnt(e, rdx, rax);
    e.load(rsi, at(r9, rdx, 3, kTo));
    e.op(0, form.wide_element, 0x8B, rdi, at(r9, rdx, form.wide_element ? 3 : 2, kData));
    e.op(0, form.wide_element, 0x89, rdi, at(rsi));
    clear_lowest(e, rax);
    jump_back(e, Condition::not_zero, next);
  }
  e.bind(none);
  const auto restore = [&] {
    restore_flags(e, state.saved_flags);
    e.load(rax, var(&state.saved_rax));
    e.load(rdx, var(&state.saved_rdx));
    for (unsigned i = 0; i < std::size(kBorrowed); i++) e.load(kBorrowed[i], var(&state.borrowed[i]));
  };
  restore();
  e.jmp_mem(at(r11, offsetof(ExitStub, hit)));
  for (const Emitter::Far jump : slow) e.bind(jump);
  restore();
  e.jmp(call);
}

}  // namespace trapline::engine::translate
