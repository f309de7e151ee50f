#include "core/vcpu_loop.h"

#include "base/trace.h"
#include "core/asleep.h"
#include "core/crash_report.h"
#include "core/finish.h"
#include "core/vm.h"
#include "cpu/events.h"
#include "cpu/para.h"
#include "devices/board_map.h"

namespace trapline::core {

namespace {

constexpr u64 kNoBudget = u64{1} << 40;

// Every vCPU is asleep for good, and nothing is on its way to wake one. A vCPU that wakes leaves the count before it
// takes what woke it, and moves `wakings`: what was taken between the two looks shows there.
bool vm_is_dead(Vm& vm) {
  const u32 wakings = vm.wakings.load();
  const auto all_dead = [&] { return vm.dead_vcpus.load() == vm.vcpus.size(); };
  return all_dead() && !vm.launch.debugger && !something_may_wake(vm) && all_dead() && vm.wakings.load() == wakings;
}

u64 ns_until_timer(const cpu::Vcpu& cpu) {
  if (cpu.timer_deadline == ~u64{0}) return ~u64{0};
  const u64 now = cpu.vm_tsc();
  return cpu.timer_deadline <= now ? 0 : cpu.clock->tsc_to_ns(cpu.timer_deadline - now);
}

bool must_run(VcpuUnit& unit) {
  cpu::Vcpu& cpu = unit.cpu;
  if (unit.pages.attention.load(std::memory_order_acquire) & cpu::attention::kick) return true;
  if (cpu.timer_deadline <= cpu.vm_tsc()) cpu.lapic->on_timer(cpu.vm_tsc());
  return cpu::wakeable(cpu);
}

void sleep_once(VcpuUnit& unit) {
  Vm& vm = unit.vm;
  const bool dead = asleep_for_good(unit.cpu);
  if (dead) unit.wakers.store(what_wakes(unit.cpu));  // before it counts as dead
  unit.pages.sleep.store(1);                          // seq_cst: before the second look; pairs with kick()
  if (!must_run(unit)) {
    if (dead) vm.dead_vcpus.fetch_add(1);
    if (dead && vm_is_dead(vm)) finish_dead(vm);
    const u64 ns = ns_until_timer(unit.cpu);
    if (ns > 0) channel::futex_wait(unit.pages.sleep, 1, ns);
    if (dead) vm.wakings.fetch_add(1), vm.dead_vcpus.fetch_sub(1);
  }
  unit.pages.sleep.store(0);
}

// Until an event can be delivered. The vCPU counts as parked: others do not wait for it to give up translations.
void sleep_until_event(VcpuUnit& unit, channel::Spin& spin) {
  const u64 start = __rdtsc();
  unit.cpu.code->park(unit.cpu);
  if (unit.cpu.para) unit.cpu.para->halted(unit.cpu);
  if (!spin.wait([&] { return must_run(unit); }))
    while (!must_run(unit)) sleep_once(unit);
  unit.cpu.code->unpark(unit.cpu);
  const u64 slept = __rdtsc() - start;
  unit.cpu.slept_ticks += slept;
  if (unit.cpu.para) unit.cpu.para->resumed(unit.cpu);
  spin.observe(slept);
}

void look_at_monitor(VcpuUnit& unit) {
  unit.pages.attention.fetch_and(~cpu::attention::kick);
  if (unit.vm.stopping()) finish(channel::EndKind::stopped, {});
  if (unit.vm.debugger) unit.vm.debugger->pause(unit);
}

[[noreturn]] void finish_crash(VcpuUnit& unit) {
  if (unit.vm.debugger) unit.vm.debugger->crashed(unit);
  end_of_triple_fault(unit);
}

engine::Exit run_guest(VcpuUnit& unit) {
  return unit.vm.debugger ? unit.vm.debugger->run(unit, kNoBudget) : unit.engine->run(unit.cpu, kNoBudget);
}

}  // namespace

void end_of_triple_fault(VcpuUnit& unit) {
  if (unit.vm.launch.rom == 0) finish(channel::EndKind::guest_crash, crash_report(unit.cpu, "triple fault"));
  constexpr u16 kResetControl = devices::map::pci_config + 1;
  for (const u32 value : {2u, 6u}) unit.bus.port_write(unit.cpu, kResetControl, 1, value);
  finish(channel::EndKind::stopped, {});
}

void run_vcpu(VcpuUnit& unit) {
  channel::Spin halt_spin{channel::Spin::longest_for(unit.vm.channel.vcpus()) / 4};
  set_current_vcpu(&unit.cpu);
  unit.cpu.code->unpark(unit.cpu);
  look_at_monitor(unit);
  for (;;) {
    switch (run_guest(unit)) {
      case engine::Exit::budget_spent:
        break;
      case engine::Exit::breakpoint:
      case engine::Exit::kicked:
        look_at_monitor(unit);
        break;
      case engine::Exit::halted:
      case engine::Exit::waiting:
        sleep_until_event(unit, halt_spin);
        if (unit.vm.stopping()) finish(channel::EndKind::stopped, {});
        break;
      case engine::Exit::shutdown:
        finish_crash(unit);
    }
  }
}

}  // namespace trapline::core
