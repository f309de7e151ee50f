// Which memory accesses of a block may share one look-up: those whose addresses differ by a constant, where nothing
// in between can end a TLB entry.
#pragma once

#include <vector>

#include "base/types.h"

namespace trapline::engine::translate {

struct Piece;
struct Context;

// One access's part in a shared look-up.
struct Share {
  static constexpr unsigned kSlots = 16;  // of State::shared
  static constexpr u8 kNone = 0xff;
  // Of all accesses that share. Wide enough for most stack frames and structures; a wider one lies across the end of a
  // page more often.
  static constexpr u16 kSpan = 512;
  u8 slot = kNone;     // where the addend is kept
  bool leads = false;  // makes the look-up, for bytes lo .. lo + span - 1, counted from its own first one
  bool write = false;  // leader: in the write table, because one of the others writes
  i32 lo = 0;
  u16 span = 0;
};

// Fills in Piece::memory and Piece::stack.
void share_lookups(const Context& context, std::vector<Piece>& pieces);

}  // namespace trapline::engine::translate
