// What engines and the MMU ask of an attached debugger. Called on the vCPU thread only; after a change of breakpoints:
// Engine::flush(), after a change of watchpoints: update_access().
#pragma once

#include "base/addr.h"
#include "base/types.h"

namespace trapline::cpu {

struct Vcpu;

class DebugPort {
 public:
  virtual ~DebugPort() = default;
  virtual bool any() const = 0;                      // is any breakpoint set?
  virtual bool breakpoint_at(Gva linear) const = 0;  // stop before the instruction at this linear address?
  // For code that is kept by physical address: could one of its linear addresses, which share the page offset, have a
  // breakpoint?
  virtual bool breakpoint_at_offset(u64 page_offset) const = 0;

  virtual bool watching() const { return false; }  // is any watchpoint set? Then every access takes the MMU's slow path
  // An access that is about to happen, by all checks. True: a watchpoint is hit, stop after the instruction.
  virtual bool accessed(Vcpu&, Gva, u64 /* bytes */, bool /* write */) { return false; }
};

// In Vcpu::debug_hits, above the bits of DR6: the debugger's own watchpoints. They never reach the guest.
inline constexpr u32 kDebuggerHit = 1u << 31;

}  // namespace trapline::cpu
