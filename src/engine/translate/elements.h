// Thunks: gathers and scatters of vector registers, element by element, where all of their elements lie in pages that
// have slots. All else is C++'s (vector/masked.cpp).
//
// They are entered by a jump, with the guest's registers in place, R11 = ExitStub*, R10 = the address without the index,
// and indices, active elements and data in State::elements. They go on at the stub's `hit`, with the elements gathered
// there, or, with nothing changed but RCX, as a call.
#pragma once

#include "engine/emit/emitter.h"
#include "engine/hostcode/host.h"
#include "engine/hostcode/region.h"
#include "engine/vector/vector_unit.h"

namespace trapline::engine::translate {

class ElementThunks {
 public:
  // Emits them at `out`'s place. `call`: the thunk that calls C++.
  void emit(emit::Emitter& out, hostcode::State& state, const hostcode::HostWays& ways, u64 call);
  // 0: `op` is neither a gather nor a scatter. `address_bytes`: 8, or 4, where addresses wrap at 4 GiB.
  u64 of(const VectorOp& op, u8 address_bytes) const;
  template <class Fn>
  void each(Fn fn) const {
    for (const u64 thunk : at_) fn(thunk);
  }

 private:
  struct Form {
    bool scatter, wide_index, wide_element, wide_address;
    unsigned number() const { return scatter * 8u + wide_index * 4u + wide_element * 2u + wide_address; }
  };
  static void emit_one(emit::Emitter& out, hostcode::State& state, const hostcode::HostWays& ways, Form form, u64 call);
  u64 at_[16] = {};
};

}  // namespace trapline::engine::translate
