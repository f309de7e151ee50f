#include "engine/translate/thunk_parts.h"

#include "base/invariant.h"
#include "engine/hostcode/thunks.h"

namespace trapline::engine::translate {

using namespace hostcode;

ThunkParts::~ThunkParts() { INVARIANT(slow_.empty(), "{} jumps of a thunk lead nowhere", slow_.size()); }

void ThunkParts::save() {
  e_.store(var(&state_.saved_rax), rax);
  e_.store(var(&state_.saved_rdx), rdx);
  save_flags(e_, state_.saved_flags);
}

void ThunkParts::restore(bool flags) {
  if (flags) restore_flags(e_, state_.saved_flags);
  e_.load(rax, var(&state_.saved_rax));
  e_.load(rdx, var(&state_.saved_rdx));
}

void ThunkParts::bind_slow(std::size_t but) {
  for (; slow_.size() > but; slow_.pop_back()) e_.bind(slow_.back());
}

void ThunkParts::sum_pages(u8 sum, u8 scratch, u8 first, const Mem& last, bool canonical) {
  constexpr u8 kUp = 16, kDown = 28;  // of bits 47:12
  e_.mov(sum, first);
  e_.shl(sum, kUp);
  if (canonical) {
    e_.mov(scratch, sum);
    e_.sar(scratch, kUp);
    e_.cmp(scratch, first);
    slow_if(Condition::not_zero);
  }
  e_.shr(sum, kDown);
  e_.lea(scratch, last);
  e_.shl(scratch, kUp);
  e_.shr(scratch, kDown);
  e_.add(sum, scratch);
}

}  // namespace trapline::engine::translate
