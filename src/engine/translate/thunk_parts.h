// What thunks that look up addresses have in common: the registers they borrow, the way they give up, and the sum of
// page numbers by which the tables are indexed (views.h).
#pragma once

#include <cstddef>
#include <vector>

#include "engine/emit/emitter.h"
#include "engine/hostcode/region.h"

namespace trapline::engine::translate {

class ThunkParts {
 public:
  ThunkParts(emit::Emitter& e, hostcode::State& state) : e_{e}, state_{state} {}
  ~ThunkParts();  // what has given up goes on somewhere
  ThunkParts(const ThunkParts&) = delete;

  // RAX, RDX and the arithmetic flags are the thunk's until restore(), which may leave it the flags.
  void save();
  void restore(bool flags = true);
  void slow_if(emit::Condition c) { slow_.push_back(e_.jcc(c)); }
  // Here goes on what has given up, all of it or what came after the first `but`.
  void bind_slow(std::size_t but = 0);
  std::size_t slow_count() const { return slow_.size(); }
  // `sum` = the number of the page of `first` and that of `last`, added. Clobbers `scratch` and the flags; `last` may be
  // by `first`. Slow, if `canonical`, where the address is not: a look-up finds the entry of the one that is.
  void sum_pages(u8 sum, u8 scratch, u8 first, const emit::Mem& last, bool canonical);

 private:
  emit::Emitter& e_;
  hostcode::State& state_;
  std::vector<emit::Emitter::Far> slow_;
};

}  // namespace trapline::engine::translate
