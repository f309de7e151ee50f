// The KVM paravirtual interface: kvmclock and hypercalls, as Linux and the BSDs know them. CPUID shows it:
// cpu/cpuid.cpp, leaves 40000000H. Linux Documentation/virt/kvm/x86/{msr,hypercalls}.rst.
//
// One object per VM, installed as Vcpu::para on each vCPU, before threads start. It keeps nothing but an account for
// each vCPU, which is its thread's own: calls need no lock.
#pragma once

#include <array>

#include "base/guest_memory.h"
#include "cpu/para.h"
#include "cpu/vcpu.h"

namespace trapline::para {

// ns = ((ticks << shift) * multiplier) >> 32; a negative shift is to the right. How guests turn TSC ticks into time.
struct ClockScale {
  u32 multiplier = 0;
  i8 shift = 0;
  static ClockScale from_tsc_khz(u64 tsc_khz);
  u64 to_ns(u64 ticks) const;
};

// What guests read; the layout is the interface's (struct pvclock_vcpu_time_info, struct pvclock_wall_clock).
struct VcpuTimeInfo {
  u32 version;  // odd while it changes
  u32 pad0;
  u64 tsc_timestamp, system_time;
  u32 tsc_to_system_mul;
  i8 tsc_shift;
  u8 flags;  // bit 0: stable across vCPUs
  u8 pad[2];
};
static_assert(sizeof(VcpuTimeInfo) == 32);
struct WallClock {
  u32 version, sec, nsec;
};
static_assert(sizeof(WallClock) == 12);
struct StealTime {
  u64 steal;  // ns that the vCPU was ready to run and did not
  u32 version, flags;
  u8 preempted;  // bits kPreempted and, set by the guest, kFlushTlb
  u8 pad[47];
};
static_assert(sizeof(StealTime) == 64);
inline constexpr u8 kPreempted = 1, kFlushTlb = 2;

class Kvm final : public cpu::Para {
 public:
  // `wall_ns`: nanoseconds since 1970 UTC when the VM's TSC (Clock::tsc) was, or would have been, 0. With --clock
  // instructions it must not come from a clock: give
  // channel::kFixedWallNs.
  Kvm(const cpu::Clock& clock, u64 wall_ns) : scale_{ClockScale::from_tsc_khz(clock.tsc_khz)}, wall_ns_{wall_ns} {}
  // The `wall_ns` of a VM on the host's clock, read now.
  static u64 wall_ns_from_host(const cpu::Clock& clock);

  bool msr_read(cpu::Vcpu& cpu, u32 index, u64* value) override;
  bool msr_write(cpu::Vcpu& cpu, u32 index, u64 value) override;
  u64 hypercall(cpu::Vcpu& cpu, u64 number, const std::array<u64, 4>& arguments) override;
  u64 hypercall_denied(cpu::Vcpu& cpu) override;
  void tsc_adjusted(cpu::Vcpu& cpu) override;
  void halted(cpu::Vcpu& cpu) override;
  void resumed(cpu::Vcpu& cpu) override;
  void ticked(cpu::Vcpu& cpu) override;

 private:
  static constexpr u32 kMostVcpus = 64;
  // What steal time is reckoned from: clocks when the vCPU's thread was looked at last.
  struct Account {
    u64 wall_ticks = 0, slept_ticks = 0, cpu_ns = 0;
    u64 stolen_ns = 0;
  };
  bool set_steal_time(cpu::Vcpu& cpu, u64 value);
  void reckon(cpu::Vcpu& cpu);
  void publish_steal(cpu::Vcpu& cpu, u64 stolen_ns) const;
  StealTime* steal_time(const cpu::Vcpu& cpu) const;
  bool write_system_time(cpu::Vcpu& cpu) const;
  bool write_wall_clock(cpu::Vcpu& cpu, Gpa gpa) const;

  ClockScale scale_;
  u64 wall_ns_;
  std::array<Account, kMostVcpus> accounts_{};
};

}  // namespace trapline::para
