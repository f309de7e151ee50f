// What the vCPU's mode is to blocks, jump cache and memory.
#pragma once

#include "engine/hostcode/jump_cache.h"
#include "engine/hostcode/view.h"

namespace trapline::engine::hostcode {

struct RunningMode {
  u32 mode = 0;
  u8 tag = JumpCache::kTags;  // kTags: no block has this mode
  View view = View::kernel;
};

}  // namespace trapline::engine::hostcode
