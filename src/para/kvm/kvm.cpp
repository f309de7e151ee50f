#include "para/kvm/kvm.h"

namespace trapline::para {

namespace {

enum Msr : u32 { wall_clock_old = 0x11, system_time_old = 0x12, wall_clock = 0x4b564d00, system_time = 0x4b564d01 };
enum Call : u64 { vapic_poll_irq = 1 };

constexpr u64 kNoSuchCall = static_cast<u64>(-1000), kNotPermitted = static_cast<u64>(-1);

}  // namespace

bool Kvm::msr_read(cpu::Vcpu& cpu, u32 index, u64* value) {
  switch (index) {
    case wall_clock:
    case wall_clock_old:
      *value = cpu.msr.kvm_wall_clock;
      return true;
    case system_time:
    case system_time_old:
      *value = cpu.msr.kvm_system_time;
      return true;
    default:
      return false;
  }
}

// An address that is not RAM is accepted and gets nothing, as on KVM: the guest finds out by reading.
bool Kvm::msr_write(cpu::Vcpu& cpu, u32 index, u64 value) {
  switch (index) {
    case wall_clock:
    case wall_clock_old:
      cpu.msr.kvm_wall_clock = value;
      write_wall_clock(cpu, Gpa{value});
      return true;
    case system_time:
    case system_time_old:
      cpu.msr.kvm_system_time = value;
      write_system_time(cpu);
      return true;
    default:
      return false;
  }
}

u64 Kvm::hypercall(cpu::Vcpu&, u64 number, const std::array<u64, 4>&) {
  return number == vapic_poll_irq
             ? 0
             : kNoSuchCall;  // a chance to notice interrupts: they are, at every instruction boundary
}

u64 Kvm::hypercall_denied(cpu::Vcpu&) { return kNotPermitted; }

}  // namespace trapline::para
