// --clock instructions: see vcpu_loop.h. Guest time is `clock.virtual_base` plus what the running vCPU has retired in
// its slice; all others have slice_start == retired.
#include <algorithm>

#include "base/trace.h"
#include "core/asleep.h"
#include "core/finish.h"
#include "core/vcpu_loop.h"
#include "core/vm.h"
#include "cpu/events.h"

namespace trapline::core {

namespace {

constexpr u64 kTurn = 20'000;  // instructions; also the longest wait of another vCPU for an IPI
constexpr u64 kLook = 64;      // turns: so often the monitor is asked whether there is input

class Turns {
 public:
  explicit Turns(Vm& vm) : vm_{vm} {}

  [[noreturn]] void run() {
    for (auto& u : vm_.vcpus) u->cpu.code->park(u->cpu);
    for (;;) {
      bool ran = false;
      for (auto& u : vm_.vcpus) ran |= take_turn(*u);
      if (!ran) skip_time();
    }
  }

 private:
  u64 now() const { return vm_.clock.virtual_base.load(std::memory_order_relaxed); }

  u64 chipset_deadline() const {
    const u64 ns = ChannelBus::chipset_deadline_ns();
    return ns == ~u64{0} ? ns : vm_.clock.ns_to_tsc(ns);
  }

  void tick_chipset(VcpuUnit& unit) {
    // A device that leaves a passed deadline standing is asked once per turn, not for ever.
    if (chipset_deadline() <= now()) unit.bus.tick(unit.cpu);
  }

  bool runnable(VcpuUnit& unit) const {
    cpu::Vcpu& cpu = unit.cpu;
    if (cpu.timer_deadline <= now()) cpu.lapic->on_timer(now());
    return cpu.activity == cpu::Activity::running || cpu::wakeable(cpu);
  }

  // Its vCPU's requests may be waited for, which parks and unparks: nobody unparks what is not its own.
  struct Awake {
    explicit Awake(VcpuUnit& unit) : cpu{unit.cpu} { cpu.code->unpark(cpu); }
    ~Awake() { cpu.code->park(cpu); }
    Awake(const Awake&) = delete;
    cpu::Vcpu& cpu;
  };

  // Up to kTurn instructions, cut at the next timed event. Returns whether the vCPU could run.
  bool take_turn(VcpuUnit& unit) {
    if (vm_.stopping()) finish(channel::EndKind::stopped, {});
    if (vm_.debugger) vm_.debugger->pause_all();
    if (vm_.debugger && vm_.debugger->held(unit)) return false;
    const Awake awake{unit};
    tick_chipset(unit);
    // Input comes with the answer to a request; a guest that computes or sleeps need not make any.
    if (++turns_ % kLook == 0) unit.bus.tick(unit.cpu);
    if (!runnable(unit)) return false;
    set_current_vcpu(&unit.cpu);
    u64 left = kTurn;
    while (left > 0 && slice(unit, left)) {
    }
    return true;
  }

  // Runs to the nearer of the turn's end and the next event. False: the turn is over.
  bool slice(VcpuUnit& unit, u64& left) {
    cpu::Vcpu& cpu = unit.cpu;
    const u64 event = std::min(chipset_deadline(), cpu.timer_deadline);
    const u64 budget = event <= now() ? left : std::min(left, event - now());
    const engine::Exit exit = vm_.debugger ? vm_.debugger->run(unit, budget) : unit.engine->run(cpu, budget);
    u64 used = settle(cpu);
    if (exit == engine::Exit::budget_spent && used == 0) {  // none retired: time passes all the same
      used = budget;
      vm_.clock.virtual_base.store(now() + used, std::memory_order_relaxed);
    }
    left -= std::min(left, used);
    switch (exit) {
      case engine::Exit::budget_spent:
        break;
      case engine::Exit::breakpoint:
        return false;  // the next turn begins with a pause
      case engine::Exit::kicked:
        unit.pages.attention.fetch_and(~cpu::attention::kick);
        if (vm_.stopping()) finish(channel::EndKind::stopped, {});
        break;
      case engine::Exit::halted:
      case engine::Exit::waiting:
        return false;
      case engine::Exit::shutdown:
        if (vm_.debugger) vm_.debugger->crashed_in_turns(unit);
        end_of_triple_fault(unit);
    }
    if (cpu.timer_deadline <= now()) cpu.lapic->on_timer(now());
    tick_chipset(unit);
    return true;
  }

  // The slice's instructions become passed time.
  u64 settle(cpu::Vcpu& cpu) {
    const u64 used = cpu.retired - cpu.slice_start;
    cpu.slice_start = cpu.retired;
    vm_.clock.virtual_base.store(now() + used, std::memory_order_relaxed);
    return used;
  }

  // All vCPUs sleep: the next thing to happen is a timer, or input from outside, or nothing ever.
  void skip_time() {
    u64 next = chipset_deadline();
    bool for_good = !vm_.launch.debugger;
    for (auto& u : vm_.vcpus) {
      next = std::min(next, u->cpu.timer_deadline);
      for_good &= asleep_for_good(u->cpu);
      u->wakers.store(what_wakes(u->cpu));
    }
    VcpuUnit& first = *vm_.vcpus.front();
    if (for_good && !something_may_wake(vm_)) finish_dead(vm_);
    const Awake awake{first};
    if (next == ~u64{0}) {
      first.bus.idle(first.cpu);
    } else if (next > now()) {
      TRACE(clock, "idle until {}", next);
      vm_.clock.virtual_base.store(next, std::memory_order_relaxed);
      first.bus.tick(first.cpu);
    }
  }

  Vm& vm_;
  u64 turns_ = 0;
};

}  // namespace

void run_in_turns(Vm& vm) { Turns{vm}.run(); }

}  // namespace trapline::core
