#include "engine/emit/displacement.h"

#include "base/invariant.h"

namespace trapline::engine::emit {

u32 displacement(u64 target, u64 end) {
  const i64 distance = static_cast<i64>(target - end);
  INVARIANT(distance == static_cast<i32>(distance), "{:#x} is out of reach of the instruction before {:#x}", target,
            end);
  return static_cast<u32>(distance);
}

}  // namespace trapline::engine::emit
