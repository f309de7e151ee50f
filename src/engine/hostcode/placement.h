// Where the movable translations of one frame's code stand: one placement for each linear page at which the frame has
// run. Programs and libraries lie elsewhere in every process, so placements whose process has ended are taken along to
// the next one's page, in place of a copy of each block (CodeCache::settle).
//
// INVARIANT: other code leads into a placement's blocks, and they lead out of it, by the jump cache and by the links
// that are noted here, and not otherwise: so all of them can be given another page at once.
#pragma once

#include <array>
#include <memory_resource>
#include <vector>

#include "base/addr.h"

namespace trapline::engine::hostcode {

struct Block;

struct Placement {
  using allocator_type = std::pmr::polymorphic_allocator<>;
  struct Link {
    u64 patch;   // address of the displacement
    u32 before;  // what it was
  };
  Placement(Gva where, const allocator_type& from) : page{where}, blocks(from), into(from), out(from) {}
  Gva page;
  u64 used = 0;              // JumpCache::turns() when one of them was last found
  bool fixed = false;        // one of them has become stale, or stands in for one that has: stays where it is
  u64 below = 0, above = 0;  // how far from the page their constants reach, in bytes
  std::pmr::vector<Block*> blocks;
  std::pmr::vector<Block*> into;  // others that are linked to one of them
  std::pmr::vector<Link> out;     // theirs to others
};

// The placements of a frame's code in one mode.
struct Family {
  using allocator_type = std::pmr::polymorphic_allocator<>;
  static constexpr u32 kFew = 4, kMany = 256;
  explicit Family(const allocator_type& from) : placements(from) {}
  std::pmr::vector<Placement*> placements;
  // Beyond so many the one that has not been used for longest is moved. Doubled when a page is asked for from which one
  // was: so many processes take turns.
  u32 most = kFew;
  std::array<Gva, 16> left{};  // such pages, the last ones
  u32 next_left = 0;
};

}  // namespace trapline::engine::hostcode
