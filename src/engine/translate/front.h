// The front half of the translator: which instructions make up a block and how each is treated.
#pragma once

#include "engine/translate/lower.h"
#include "engine/vector/vector_unit.h"

namespace trapline::engine::translate {

// Units whose use needs no check while the key holds.
struct Ready {
  bool sse = false, avx = false, avx512 = false, x87 = false;
};

class Front {
 public:
  explicit Front(VectorUnit& unit) : unit_{unit} {}
  // Decodes from `bytes` (`available` of them, the rest of the page) on. False: no block can start here, or the vector
  // unit is full (*full).
  bool collect(const cpu::Vcpu& cpu, const u8* bytes, u64 available, isa::CodeSize size, const Context& context,
               const Ready& ready, std::vector<Piece>& out, bool* full);

 private:
  void classify(const cpu::Vcpu& cpu, const Context& context, const Ready& ready, Piece& p, bool* full);
  bool classify_vector(const cpu::Vcpu& cpu, const Ready& ready, Piece& p);
  VectorUnit& unit_;
};

}  // namespace trapline::engine::translate
