#include "core/asleep.h"

#include <algorithm>

#include "core/crash_report.h"
#include "core/finish.h"
#include "core/history.h"
#include "cpu/lapic.h"

namespace trapline::core {

namespace {

// An IOAPIC pin that is unmasked and sends NMI or INIT: a timer's watchdog, for instance.
bool pin_wakes(u64 entry) {
  constexpr u64 kMasked = 1u << 16;
  const u64 mode = entry >> 8 & 7;
  return !(entry & kMasked) && (mode == 4 || mode == 5);
}

}  // namespace

bool asleep_for_good(const cpu::Vcpu& cpu) {
  return cpu.activity == cpu::Activity::wait_for_sipi || !(cpu.sys_flags & cpu::flag::if_);
}

u32 what_wakes(const cpu::Vcpu& cpu) {
  using namespace cpu::attention;
  if (cpu.activity == cpu::Activity::wait_for_sipi) return init | sipi;
  return init | unhalt | (cpu.nmi_blocked ? 0 : any_nmi);
}

bool something_may_wake(Vm& vm) {
  for (const auto& u : vm.vcpus)
    if (u->pages.attention.load() & u->wakers.load()) return true;
  const devices::IoApicView ioapic = vm.devices->page.ioapic.load();
  return std::any_of(ioapic.entries.begin(), ioapic.entries.end(), pin_wakes) ||
         vm.vcpus.front()->lapic->lint0_wakes();  // only its pin is wired
}

void finish_dead(Vm& vm) {
  finish(channel::EndKind::guest_halted,
         fmt::format("the guest halted with interrupts off on every vCPU: nothing can wake it\n{}",
                     describe(vm.vcpus.front()->cpu)));
}

}  // namespace trapline::core
