// --perf-map: where translated code lies and which guest code it is, in a log shared with the monitor, which makes the
// map that `perf` reads of it (monitor/perf_map.h) and treats it as hostile.
#pragma once

#include "base/types.h"
#include "channel/code_names.h"

namespace trapline::engine {

using channel::CodeName;
using channel::CodeNames;

// Set before vCPU threads start; null: off.
inline CodeNames* code_names = nullptr;

// Any vCPU's thread.
inline void name_code(Hva host, u64 bytes, Gva guest, u32 vcpu) {
  if (code_names) code_names->add(host, bytes, guest, vcpu);
}

}  // namespace trapline::engine
