// The machine under a Xen PV guest, as its hypervisor needs it.
#pragma once

#include "para/xen/domain.h"

namespace trapline::core {

struct Vm;

class XenHost final : public para::xen::Host {
 public:
  explicit XenHost(Vm& vm) : vm_{vm} {}
  void wake(u32 vcpu) override;
  void power_off(cpu::Vcpu& cpu) override;
  void reboot(cpu::Vcpu& cpu) override;
  [[noreturn]] void crash(cpu::Vcpu& cpu, const std::string& why) override;

 private:
  Vm& vm_;
};

}  // namespace trapline::core
