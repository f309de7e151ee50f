// What engines ask of an attached debugger. Called on the vCPU thread only; after a change of breakpoints: Engine::flush().
#pragma once

#include "base/addr.h"

namespace trapline::cpu {

class DebugPort {
 public:
  virtual ~DebugPort() = default;
  virtual bool any() const = 0;                       // is any breakpoint set?
  virtual bool breakpoint_at(Gva linear) const = 0;   // stop before the instruction at this linear address?
};

}  // namespace trapline::cpu
