// What memory accesses may see: part of a block's mode.
#pragma once

#include "base/types.h"

namespace trapline::engine::hostcode {

enum class View : u8 {
  kernel,     // under SMAP
  kernel_ac,  // with RFLAGS.AC = 1, or without SMAP
  user,
};
inline constexpr unsigned kViews = 3;

}  // namespace trapline::engine::hostcode
