// What the stub debugs: a VM whose vCPUs are all paused, or run. Tests put a fake here.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "channel/debug_mailbox.h"

namespace trapline::monitor::gdb {

struct Stop {
  u32 vcpu = 0;
  channel::DebugReport report = channel::DebugReport::none;  // none: it was asked to
  channel::StopKind kind = channel::StopKind::access;        // watchpoint
  Gva address{};                                             // watchpoint
};

// All but interrupt() and end() are for a paused VM. Memory is linear, by the paging of the vCPU. False, 0, nothing: it
// cannot be done, or the VM has gone.
class Target {
 public:
  virtual ~Target() = default;
  virtual u32 vcpus() const = 0;
  virtual bool read_registers(u32 vcpu, channel::DebugRegisters& out) = 0;
  virtual bool write_registers(u32 vcpu, const channel::DebugRegisters& in) = 0;
  virtual std::size_t read_memory(u32 vcpu, Gva address,
                                  std::span<u8> out) = 0;  // bytes read before the first unmapped one
  virtual std::size_t write_memory(u32 vcpu, Gva address, std::span<const u8> in) = 0;
  virtual std::optional<Gpa> translate(u32 vcpu, Gva address) = 0;
  // Replaces all breakpoints and watchpoints; at most DebugMailbox::kStops. In force from the next resume on.
  virtual void set_stops(const std::vector<channel::DebugStop>& stops) = 0;
  // vCPUs in neither mask stay paused.
  virtual void resume(u64 run_mask, u64 step_mask, bool step_interrupts) = 0;
  virtual void interrupt() = 0;  // pause it
  virtual void end() = 0;        // end the VM
};

}  // namespace trapline::monitor::gdb
