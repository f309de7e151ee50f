// The parts of which the thunks of descriptors.h are made: from a selector to its descriptor, what must be so for it to
// be no matter for C++, and the ways out.
#pragma once

#include <optional>

#include "cpu/vcpu.h"
#include "engine/translate/thunk_parts.h"

namespace trapline::engine::translate {

// Bits of a descriptor's upper half (SDM Vol. 3A figure 3-8).
namespace descriptor {
inline constexpr u32 kAccessed = 1 << 8, kReadWrite = 1 << 9, kCode = 1 << 11, kNotSystem = 1 << 12, kPresent = 1 << 15,
                     kGranular = 1 << 23;
inline constexpr unsigned kDplShift = 13;
}  // namespace descriptor

// Registers from begin() on: R10 the selector, RAX the upper half of the descriptor, RDX all of it; RBX and RCX are free.
class DescriptorParts {
 public:
  // `tables`: DescriptorThunks::emit's.
  DescriptorParts(emit::Emitter& e, cpu::Vcpu& cpu, hostcode::State& state, u64 tables)
      : e_{e}, cpu_{cpu}, state_{state}, parts_{e, state}, tables_{tables} {}

  // Finds the descriptor. `null`: a jump from where the selector is null, which is slow otherwise.
  void begin(std::optional<emit::Emitter::Far>* null = nullptr);
  // -- Slow, unless
  void demand(u32 mask, u32 value);  // of the upper half
  void readable();                   // data, or code that may be read
  void visible();                    // neither CPL nor RPL above DPL
  // RBX: the limit in bytes.
  void limit();
  // -- Out: on, and behind that what was slow, as a call
  void leave();
  void end(u64 call);
  void end_with_zero(u64 call);  // with ZF set

 private:
  void slow_if(emit::Condition c) { parts_.slow_if(c); }
  void restore();

  emit::Emitter& e_;
  cpu::Vcpu& cpu_;
  hostcode::State& state_;
  ThunkParts parts_;
  const u64 tables_;
};

}  // namespace trapline::engine::translate
