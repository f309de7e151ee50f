// What a paravirtual interface (para/) adds to the CPU. The cpu module knows no such interface: it asks whatever the VM
// installed as Vcpu::para. One object serves all vCPUs and is called on their threads; what is per vCPU lives in the
// Vcpu.
#pragma once

#include <array>

#include "base/types.h"

namespace trapline::cpu {

struct Vcpu;

struct Para {
  virtual ~Para() = default;
  // RDMSR and WRMSR of indices that the architecture does not define. False: not one of the interface's, or refused:
  // #GP(0).
  virtual bool msr_read(Vcpu& cpu, u32 index, u64* value) = 0;
  virtual bool msr_write(Vcpu& cpu, u32 index, u64 value) = 0;
  // VMCALL or VMMCALL at CPL 0; returns what the guest finds in RAX (EAX outside 64-bit mode).
  virtual u64 hypercall(Vcpu& cpu, u64 number, const std::array<u64, 4>& arguments) = 0;
  // The same at CPL > 0.
  virtual u64 hypercall_denied(Vcpu& cpu) = 0;
  // This vCPU's TSC_ADJUST changed: time pages that refer to its TSC must be written anew.
  virtual void tsc_adjusted(Vcpu& cpu) = 0;
  // The vCPU's thread is about to sleep in a halt; it has slept, and the guest's next instruction has not begun; its
  // timer has fired.
  virtual void halted(Vcpu&) {}
  virtual void resumed(Vcpu&) {}
  virtual void ticked(Vcpu&) {}
};

}  // namespace trapline::cpu
