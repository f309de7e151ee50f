// The child's side of native.h.
#pragma once

#include "fuzz/native.h"
#include "fuzz/native_frame.h"

namespace trapline::fuzz {

struct Native::Shared {
  u64 count = 0;             // sequences in this batch
  volatile u64 current = 0;  // the one under way; after a death, who was it
  u64 first = 0;             // where to begin: after a death, behind it
  u8 read_only[place::read_only_size];
  bool code32 = false, code16 = false;  // what the kernel lets it run; known once the first child has started
  isa::CodeSize size[place::batch];
  Snapshot initial[place::batch];
  Outcome outcome[place::batch];
};

// Never returns. `channel` delivers one byte per batch and takes one back.
[[noreturn]] void run_child(Native::Shared& shared, int code_fd, int channel);

}  // namespace trapline::fuzz
