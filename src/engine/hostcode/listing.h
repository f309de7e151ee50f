// A block for people: its guest instructions, each with its host code below. Host addresses become names, so that two
// runs print the same.
#pragma once

#include <deque>
#include <memory_resource>
#include <string>
#include <vector>

#include "engine/hostcode/block.h"
#include "engine/hostcode/region.h"

namespace trapline::engine::hostcode {

struct ThunkName {
  u64 address;
  const char* name;
};

struct Listed {
  const cpu::Vcpu& cpu;
  const State& state;
  std::vector<ThunkName> thunks;
  const std::pmr::deque<ExitStub>& sites;
  std::size_t first_site = 0;  // of the block's; earlier ones are not looked at
};

// Lines, each with its newline. `block`'s host code is in place.
std::string list(const Listed& in, const Block& block, bool guest, bool host);

}  // namespace trapline::engine::hostcode
