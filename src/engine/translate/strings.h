// REP string instructions of translated code: pieces of host code that do the ordinary case, a few elements that lie
// in one page of RAM each, by the host's own instruction. All else, and what is longer than a call costs, is C++'s
// (semantics/string.cpp).
//
// They are entered by a jump, with the guest's registers in place, R11 = ExitStub* and RCX = the count, which is not 0;
// they go on at its `resume`, or, with nothing changed but R10 and RCX, as a call. The host's DF is always 0: what runs
// backwards is a loop (MOVS and STOS of 64-bit code), or C++'s.
#pragma once

#include "cpu/vcpu.h"
#include "engine/emit/emitter.h"
#include "engine/hostcode/host.h"
#include "engine/hostcode/region.h"
#include "engine/hostcode/string_form.h"

namespace trapline::engine::translate {

using emit::Emitter;
using hostcode::State;
using hostcode::StringForm;

class StringThunks {
 public:
  // Emits them at `out`'s place, for 64- and 32-bit code. `call`: the thunk that calls C++.
  void emit(Emitter& out, cpu::Vcpu& cpu, State& state, const hostcode::HostWays& ways, u64 call);
  // Not what takes longer than a call: C++ copies with wide registers and goes page by page.
  static constexpr u64 kMostBytes = 512;
  static bool takes(const StringForm& form, u64 count) { return count <= kMostBytes >> form.size_log2; }
  template <class Fn>
  void each(Fn fn) const {
    for (const auto& forms : at_)
      for (const u64 thunk : forms)
        if (thunk) fn(thunk);
  }
  u64 of(const StringForm& form, bool bits64) const { return at_[bits64][index(form)]; }

 private:
  static constexpr unsigned kForms = 5 * 4 * 2;
  static unsigned index(const StringForm& f) {
    return static_cast<unsigned>(f.op) * 8 + f.size_log2 * 2u + f.while_equal;
  }
  u64 at_[2][kForms] = {};
};

}  // namespace trapline::engine::translate
