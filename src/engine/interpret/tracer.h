// --trace=cpu: one line per instruction, with the registers it changed. Deterministic.
#pragma once

#include "engine/interpret/op.h"

namespace trapline::engine::interpret {

class Tracer {
 public:
  Tracer(const Vcpu& cpu, const DecodedBlock& block);  // before the instruction
  void print(const Vcpu& cpu) const;                   // after it; nothing when the area is off

 private:
  bool on_;
  u64 rip_ = 0, gpr_[16] = {};
  u32 flags_ = 0;
  const DecodedBlock* block_;
  isa::CodeSize size_ = isa::CodeSize::bits64;
};

}  // namespace trapline::engine::interpret
