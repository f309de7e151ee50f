// Thunks: LAR, LSL, VERR, VERW, and loads of data segments in 64-bit code, where the descriptor is in the GDT, plainly
// allowed, accessed before, and in a page that has a slot. All else is C++'s (cpu/descriptors.cpp, cpu/segments.cpp).
//
// They are entered by a jump, with the guest's registers in place, R11 = ExitStub* and R10 = the selector. They go on at
// the stub's `hit`, with the answer of LAR and LSL in R10, or, with nothing changed but RCX, as a call.
#pragma once

#include "cpu/vcpu.h"
#include "engine/emit/emitter.h"
#include "engine/hostcode/region.h"

namespace trapline::engine::translate {

class DescriptorThunks {
 public:
  // Emits them at `out`'s place. `tables`: of the kernel's view, whose rights the reads of descriptor tables have in all
  // rings. `call`: the thunk that calls C++.
  void emit(emit::Emitter& out, cpu::Vcpu& cpu, hostcode::State& state, u64 tables, u64 call);
  // 0: there is none for it.
  u64 of(const isa::Insn& insn) const;
  template <class Fn>
  void each(Fn fn) const {
    for (const u64 thunk : at_)
      if (thunk) fn(thunk);
  }

 private:
  enum Use : u8 { lar, lsl, verr, verw, load_es, load_ds, load_fs, load_gs, count };
  u64 at_[count] = {};
};

}  // namespace trapline::engine::translate
