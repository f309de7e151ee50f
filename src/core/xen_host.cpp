#include "core/xen_host.h"

#include "core/crash_report.h"
#include "core/finish.h"
#include "core/vm.h"
#include "devices/acpi_pm.h"
#include "devices/board_map.h"

namespace trapline::core {

void XenHost::wake(u32 vcpu) {
  if (vcpu < vm_.channel.vcpus()) channel::wake(vm_.channel.vcpu(vcpu));
}

void XenHost::power_off(cpu::Vcpu& cpu) {
  constexpr u32 kSleepEnable = 1u << 13, kTypeShift = 10;
  cpu.bus->port_write(cpu, devices::map::acpi_pm + devices::AcpiPm::kPm1Control, 2,
                      devices::kSleepTypeS5 << kTypeShift | kSleepEnable);
}

void XenHost::reboot(cpu::Vcpu& cpu) {
  constexpr u16 kResetControl = devices::map::pci_config + 1;
  for (const u32 value : {2u, 6u}) cpu.bus->port_write(cpu, kResetControl, 1, value);
}

void XenHost::crash(cpu::Vcpu& cpu, const std::string& why) {
  finish(channel::EndKind::guest_crash, fmt::format("{}\n{}", why, describe(cpu)));
}

}  // namespace trapline::core
