// A block for people: its guest instructions, each with its host code below. Host addresses become names, so that two
// runs print the same.
#pragma once

#include <deque>
#include <string>

#include "engine/translate/block.h"
#include "engine/translate/region.h"
#include "engine/translate/thunks.h"

namespace trapline::engine::translate {

struct Listed {
  const cpu::Vcpu& cpu;
  const State& state;
  const ThunkAddresses& thunks;
  const std::deque<Site>& sites;
  std::size_t first_site = 0;  // of the block's; earlier ones are not looked at
};

// Lines, each with its newline. `block`'s host code is in place.
std::string list(const Listed& in, const Block& block, bool guest, bool host);

}  // namespace trapline::engine::translate
