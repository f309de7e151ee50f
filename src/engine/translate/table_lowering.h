// Memory accesses by the tables of views.h.
#pragma once

#include "engine/hostcode/lower.h"
#include "engine/translate/descriptors.h"
#include "engine/translate/elements.h"
#include "engine/translate/strings.h"
#include "engine/translate/views.h"

namespace trapline::engine::translate {

using emit::Emitter;
using emit::Fixup;
using emit::Mem;
using hostcode::Context;
using hostcode::ExitStub;
using hostcode::Lowering;
using hostcode::Place;
using hostcode::SharedLookup;
using hostcode::State;
using hostcode::TranslatedInsn;

class TableLowering final : public hostcode::MemoryLowering {
 public:
  TableLowering(State& state, const Views& views, const hostcode::HostWays& ways, const DebugOptions& debug)
      : state_{state}, views_{views}, ways_{ways}, debug_{debug} {}
  // Emits its thunks at `out`'s place, for when `call` would call C++. `kernel`: the tables of the kernel's view.
  void emit_thunks(Emitter& out, cpu::Vcpu& cpu, u64 kernel, u64 call);
  template <class Fn>
  void each_thunk(Fn fn) const {  // fn(address, name)
    for (const u64 thunk : gather_) fn(thunk, "gather");
    for (const u64 thunk : lead_away_) fn(thunk, "scatter");
    for (const u64 thunk : scatter_) fn(thunk, "scatter");
    strings_.each([&](u64 thunk) { fn(thunk, "string"); });
    elements_.each([&](u64 thunk) { fn(thunk, "elements"); });
    descriptors_.each([&](u64 thunk) { fn(thunk, "descriptor"); });
  }

  void prepare(const Context& context, std::vector<TranslatedInsn>& pieces) const override;
  void begin_block() override { retries_.clear(); }
  void reach(Lowering& to, const Place& place, unsigned size, bool write, const SharedLookup& share,
             ExitStub& stub) override;
  Mem reached(const Place& place) const override;
  void tail(Lowering& to, u32 number) override;
  Mem jump_slot(Emitter& e, Mem slot, u8 free) const override;
  void turn(Emitter& e, const hostcode::RunningMode& to) const override;
  u64 thunk(const ExitStub& stub, bool bits64) const override;
  u64 put_back(const ExitStub& stub) const override { return scatter_[stub.size > kFewBytes]; }
  u64 constant(const Fixup& fixup, Gva linear) const override;

 private:
  struct Retry {  // a look-up of its own for an access whose shared one has failed
    Place place;
    unsigned size;
    bool write;
    ExitStub* site;
    u64 back;  // goes on here when it finds the slot
  };
  void page_sum(Emitter& e, u8 first, unsigned size);
  void look_up(Emitter& e, u8 base, i32 disp, unsigned size, bool write);
  void look_up_constant(Emitter& e, const Place& place, unsigned size, bool write);

  State& state_;
  const Views& views_;
  const hostcode::HostWays ways_;
  const DebugOptions debug_;
  std::vector<Retry> retries_;
  // r11: ExitStub* of a load of up to 8, 16, 32, 64 bytes at rcx, which may lie in two pages that have slots; else a call
  u64 gather_[4] = {};
  // The same of a store, which then writes to a copy; and what puts its bytes in place, of few bytes and of many.
  u64 lead_away_[4] = {}, scatter_[2] = {};
  static constexpr u8 kFewBytes = 16;
  StringThunks strings_;
  ElementThunks elements_;
  DescriptorThunks descriptors_;
};

}  // namespace trapline::engine::translate
