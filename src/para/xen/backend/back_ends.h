// The back ends of a VM: for each virtio disk and network of the machine one that the guest's front end speaks to. They are made when
// the guest first speaks to xenstore, on its thread, because the machine's devices are asked then.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

#include "para/xen/backend/back_end.h"

namespace trapline::para::xen {

class BackEnds {
 public:
  BackEnds(Domain& domain, GuestMemory& ram) : domain_{domain}, ram_{ram} {}
  ~BackEnds();

  void set_up(cpu::Vcpu& cpu);  // once; nothing if the machine has no such devices
  void store_changed(cpu::Vcpu& cpu);
  void notified(cpu::Vcpu& cpu, u32 instance);
  // An interrupt of the machine. False: none of these.
  bool interrupted(cpu::Vcpu& cpu, u8 vector);
  static constexpr u8 kFirstVector = 0x41;

 private:
  void make_all(cpu::Vcpu& cpu);

  Domain& domain_;
  GuestMemory& ram_;
  std::vector<std::unique_ptr<BackEnd>> all_;  // by instance; as it is once `ready_`
  std::atomic<bool> ready_{false};
  std::mutex lock_;
};

}  // namespace trapline::para::xen
