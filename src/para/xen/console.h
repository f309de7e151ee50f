// The console ring of the start info (xen/io/console.h) as the guest's hvc0: its other end is the VM's first serial
// port, as a hypervisor drives one. Ring indices are the guest's to break: they are masked and compared, never trusted.
#pragma once

#include <mutex>
#include <string_view>

#include "base/guest_memory.h"
#include "cpu/vcpu.h"
#include "para/xen/event_channels.h"
#include "para/xen/layout.h"

namespace trapline::para::xen {

class Domain;

class Console {
 public:
  Console(Domain& domain, GuestMemory& ram, Mfn page, Port port)
      : domain_{domain}, ram_{ram}, page_{page}, port_{port} {}
  void notified(cpu::Vcpu& cpu);  // the guest has sent
  void received(cpu::Vcpu& cpu);  // the serial port has interrupted
  void emit(cpu::Vcpu& cpu, std::string_view text);
  static constexpr u8 kVector = 0x40;  // of the serial port's interrupt

 private:
  void set_up(cpu::Vcpu& cpu);
  bool drain(cpu::Vcpu& cpu);
  bool fill(cpu::Vcpu& cpu);

  Domain& domain_;
  GuestMemory& ram_;
  Mfn page_;
  Port port_;
  bool ready_ = false;
  std::mutex lock_;
};

}  // namespace trapline::para::xen
