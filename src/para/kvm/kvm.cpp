#include "para/kvm/kvm.h"

#include "cpu/lapic.h"

namespace trapline::para {

namespace {

enum Msr : u32 {
  wall_clock_old = 0x11,
  system_time_old = 0x12,
  wall_clock = 0x4b564d00,
  system_time = 0x4b564d01,
  steal = 0x4b564d03
};
enum Call : u64 { vapic_poll_irq = 1, kick_cpu = 5 };

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
    case steal:
      if (cpu.clock->instructions) return false;
      *value = cpu.msr.kvm_steal_time;
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
    case steal:
      return set_steal_time(cpu, value);
    default:
      return false;
  }
}

u64 Kvm::hypercall(cpu::Vcpu& cpu, u64 number, const std::array<u64, 4>& arguments) {
  switch (number) {
    case vapic_poll_irq:  // a chance to notice interrupts: they are, at every instruction boundary
      return 0;
    case kick_cpu:  // flags, which are none yet, and an APIC id; one that nobody has is nobody's loss
      if (cpu.lapic) cpu.lapic->unhalt(static_cast<u32>(arguments[1]));
      return 0;
    default:
      return kNoSuchCall;
  }
}

u64 Kvm::hypercall_denied(cpu::Vcpu&) { return kNotPermitted; }

}  // namespace trapline::para
