// What a hypervisor of guests whose kernels run deprivileged, at CPL 3 as their programs do, takes over from the CPU
// (para/xen/). The cpu module knows no such interface: it asks whatever the VM installed as Vcpu::hypervisor. One object
// serves all vCPUs and is called on their threads.
//
// Nothing here is asked on the way of an instruction that succeeds: a vCPU without a hypervisor pays one look at a
// pointer where an event is delivered, a page fault raised or SYSCALL executed.
#pragma once

#include "base/addr.h"
#include "base/types.h"
#include "cpu/fault.h"

namespace trapline::cpu {

struct Event;  // cpu/delivery.h
struct Vcpu;

struct Hypervisor {
  virtual ~Hypervisor() = default;
  // SYSCALL; `next` is the instruction behind it. Any outcome of an instruction.
  virtual Outcome syscall(Vcpu& cpu, u64 next) = 0;
  // An exception, or INT n, in place of the IDT. cpu.rip is as deliver_fault() finds it.
  virtual Outcome deliver(Vcpu& cpu, const Event& event) = 0;
  // attention::interrupt at a boundary. jumped: the guest's handler is next; next: nothing to deliver.
  virtual Outcome take_event(Vcpu& cpu) = 0;
  // Would take_event() end the vCPU's sleep?
  virtual bool wakes(Vcpu& cpu) = 0;
  // timer_deadline has come.
  virtual void on_timer(Vcpu& cpu) = 0;
  // attention::sipi: true if the vCPU, which waited, has been set up to run.
  virtual bool start(Vcpu& cpu) = 0;
  // All translations that the guest means by a flush; asked by other vCPUs too, on this one's thread.
  virtual void flush(Vcpu& cpu) = 0;
  // A store to a page that is there and not writable (cpu.fault is the #PF). True: it is a page table, and the bytes go
  // to one of the next two; else the fault is the guest's.
  virtual bool takes_write(Vcpu& cpu, Gva linear, Gpa gpa, unsigned size) = 0;
  // False: cpu.fault set. replace: as replace_slow() in cpu/mmu.h.
  virtual bool write_table(Vcpu& cpu, Gva linear, Gpa gpa, const void* in, unsigned size) = 0;
  virtual bool replace_table(Vcpu& cpu, Gva linear, Gpa gpa, const void* expected, const void* in, unsigned size,
                             bool* stored) = 0;
};

}  // namespace trapline::cpu
