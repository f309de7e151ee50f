#include "engine/translate/elements.h"

#include <cstddef>
#include <iterator>

#include "engine/hostcode/exit_stub.h"
#include "engine/translate/thunk_parts.h"
#include "engine/vector/op.h"

namespace trapline::engine::translate {

using namespace hostcode;
using Elements = State::Elements;

namespace {

constexpr u8 kBorrowed[] = {rbx, rsi, rdi, r8, r9};
static_assert(std::size(kBorrowed) <= std::size(State{}.borrowed));

constexpr i32 kIndex = offsetof(Elements, index), kData = offsetof(Elements, data), kTo = offsetof(Elements, to);

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
  const u8 size = form.wide_element ? 8 : 4;
  ThunkParts parts{e, state};
  parts.save();
  for (unsigned i = 0; i < std::size(kBorrowed); i++) e.store(var(&state.borrowed[i]), kBorrowed[i]);
  e.lea(r9, var(&state.elements));
  e.movzx8(rcx, at(r11, static_cast<i32>(offsetof(ExitStub, mem) + offsetof(isa::MemOperand, scale_log2))));
  e.load(r8, var(form.scatter ? &state.write_table : &state.tables));
  if (form.scatter && ways.gs_base) e.add(r8, var(&state.tables));  // it is counted from there
  e.load(rax, at(r9, offsetof(Elements, active)));
  e.and_mem(rax, at(r9, offsetof(Elements, exist)));
  if (form.scatter) e.store(at(r9, offsetof(Elements, active)), rax);
  e.test(rax, rax);
  const Emitter::Far none = e.jcc(Condition::zero);

  const u64 look = e.pc();
  e.tzcnt(rdx, rax);
  e.movsx(form.wide_index ? 8 : 4, rsi, at(r9, rdx, form.wide_index ? 3 : 2, kIndex));
  e.shlx(rsi, rsi, rcx);
  e.lea(rsi, at(rsi, r10, 0), form.wide_address);
  parts.sum_pages(rbx, rdi, rsi, at(rsi, size - 1), form.wide_address);
  e.load(rdi, at(r8, rbx, 3));
  e.test(rdi, rdi);
  parts.slow_if(Condition::zero);
  if (form.scatter) {
    e.add(rdi, rsi);
    e.store(at(r9, rdx, 3, kTo), rdi);
  } else {
    e.load_sized(size, rdi, at(rdi, rsi, 0));
    e.store_sized(size, at(r9, rdx, form.wide_element ? 3 : 2, kData), rdi);
  }
  e.blsr(rax, rax);
  e.bind(e.jcc(Condition::not_zero), look);

  if (form.scatter) {  // from the lowest on: they may overlap
    e.load(rax, at(r9, offsetof(Elements, active)));
    const u64 next = e.pc();
    e.tzcnt(rdx, rax);
    e.load(rsi, at(r9, rdx, 3, kTo));
    e.load_sized(size, rdi, at(r9, rdx, form.wide_element ? 3 : 2, kData));
    e.store_sized(size, at(rsi), rdi);
    e.blsr(rax, rax);
    e.bind(e.jcc(Condition::not_zero), next);
  }
  e.bind(none);
  const auto restore = [&] {
    parts.restore();
    for (unsigned i = 0; i < std::size(kBorrowed); i++) e.load(kBorrowed[i], var(&state.borrowed[i]));
  };
  restore();
  e.jmp_mem(at(r11, offsetof(ExitStub, hit)));
  parts.bind_slow();
  restore();
  e.jmp(call);
}

}  // namespace trapline::engine::translate
