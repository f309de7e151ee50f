// The core's half of a debugger: stops vCPUs, carries out the mailbox's commands, and is what engines and MMU ask
// (cpu::DebugPort). Exists only under --gdb. Breakpoints and watchpoints are read by all vCPU threads and change only
// while all are paused.
#pragma once

#include <optional>
#include <vector>

#include "channel/debug_mailbox.h"
#include "cpu/debug_port.h"
#include "engine/engine.h"

namespace trapline::core {

struct Vm;
struct VcpuUnit;

class Debugger final : public cpu::DebugPort {
 public:
  explicit Debugger(Vm& vm);  // connects every vCPU; takes over the stops that the mailbox holds already

  // Engine::run, or the step that was asked for. Exit::breakpoint: pause next.
  engine::Exit run(VcpuUnit& unit, u64 budget);

  bool pausing() const { return mailbox_.stop.load(std::memory_order_acquire) != 0; }
  // Sleeps and obeys while the VM is to be stopped. The vCPU must be unparked (run_vcpu).
  void pause(VcpuUnit& unit);
  // --clock instructions: for all vCPUs at once; all are parked.
  void pause_all();
  // --clock instructions: paused by itself while others go on.
  bool held(const VcpuUnit& unit) const;
  // After a triple fault: with a client attached, the VM stops for a last look.
  void crashed(VcpuUnit& unit);
  void crashed_in_turns(VcpuUnit& unit);

  // cpu::DebugPort
  bool any() const override { return !breakpoints_.empty(); }
  bool breakpoint_at(Gva linear) const override;
  bool breakpoint_at_offset(u64 page_offset) const override;
  bool watching() const override { return !watchpoints_.empty(); }
  bool accessed(cpu::Vcpu& cpu, Gva linear, u64 bytes, bool write) override;

 private:
  struct PerVcpu {
    bool stepping = false, held = false;
    bool flush = false;  // breakpoints changed
    bool pass = false;   // the breakpoint at `pass_at` was told: execute that instruction
    Gva pass_at;
    std::optional<channel::DebugStop> hit;  // a watchpoint that the instruction under way has hit
    u64 hit_retired = 0;                    // cpu.retired then
    bool owes_hit = false;                  // `hit` is to be told
  };

  PerVcpu& state_of(const VcpuUnit& unit);
  engine::Exit step_once(VcpuUnit& unit, bool interrupts);
  engine::Exit stop_for(VcpuUnit& unit, channel::DebugReport otherwise);
  bool told_of_hit(VcpuUnit& unit);
  bool report(VcpuUnit& unit, channel::DebugReport what);
  void announce_pause(u64 bits);
  u32 next_word(u32 seen);
  void execute(u32 word, VcpuUnit& unit);
  u32 perform(channel::DebugCommand command, VcpuUnit& unit);
  void load_stops();
  bool resume(VcpuUnit& unit);

  Vm& vm_;
  channel::DebugMailbox& mailbox_;
  std::vector<PerVcpu> state_;
  std::vector<Gva> breakpoints_;  // sorted
  std::vector<channel::DebugStop> watchpoints_;
};

}  // namespace trapline::core
