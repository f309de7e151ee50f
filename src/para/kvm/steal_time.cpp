// Steal time: how long a vCPU was ready to run and did not, because the host ran something else. A process without
// privileges is not told; it follows from three clocks: what has passed, less what its thread ran and less what it
// slept of its own accord. And the byte beside it: that the vCPU sleeps, so that nobody sends it an interrupt to have
// its TLB flushed: who sets the flag there has it done before the vCPU runs again.
#include <time.h>
#include <x86intrin.h>

#include <algorithm>
#include <atomic>

#include "base/trace.h"
#include "cpu/code_map.h"
#include "cpu/mmu.h"
#include "para/kvm/kvm.h"

namespace trapline::para {

namespace {

constexpr u64 kEnabled = 1, kReserved = 0x3e;  // the structure is aligned to 64 bytes

u64 thread_cpu_ns() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<u64>(t.tv_sec) * 1'000'000'000 + static_cast<u64>(t.tv_nsec);
}

void wrote(const cpu::Vcpu& cpu, u64 gpa) {
  if (cpu.code) cpu.code->written(Gpa{gpa}.frame(), static_cast<u32>(Gpa{gpa}.page_offset()), sizeof(StealTime));
}

}  // namespace

// Null: off, or not in RAM.
StealTime* Kvm::steal_time(const cpu::Vcpu& cpu) const {
  if (!(cpu.msr.kvm_steal_time & kEnabled)) return nullptr;
  const auto bytes = cpu.ram->bytes(Gpa{cpu.msr.kvm_steal_time & ~kEnabled}, sizeof(StealTime));
  return bytes ? reinterpret_cast<StealTime*>(bytes->data()) : nullptr;
}

bool Kvm::set_steal_time(cpu::Vcpu& cpu, u64 value) {
  if (cpu.clock->instructions || (value & kReserved)) return false;
  cpu.msr.kvm_steal_time = value;
  TRACE(clock, "steal time at {:#x}", value & ~kEnabled);
  if (cpu.index >= kMostVcpus) return true;
  // What was stolen stays: a guest that has turned it off and on again must not see it go back.
  Account& a = accounts_[cpu.index];
  a = {__rdtsc(), cpu.slept_ticks, thread_cpu_ns(), a.stolen_ns};
  publish_steal(cpu, a.stolen_ns);
  return true;
}

// The version is odd while it changes. Who reads is this vCPU, or one that looks twice.
void Kvm::publish_steal(cpu::Vcpu& cpu, u64 stolen_ns) const {
  StealTime* const shared = steal_time(cpu);
  if (!shared) return;
  std::atomic_ref version{shared->version};
  version.store(version.load(std::memory_order_relaxed) | 1, std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_release);
  std::atomic_ref{shared->steal}.store(stolen_ns, std::memory_order_relaxed);
  version.store(version.load(std::memory_order_relaxed) + 1, std::memory_order_release);
  wrote(cpu, cpu.msr.kvm_steal_time & ~kEnabled);
}

void Kvm::reckon(cpu::Vcpu& cpu) {
  if (!(cpu.msr.kvm_steal_time & kEnabled) || cpu.index >= kMostVcpus) return;
  Account& a = accounts_[cpu.index];
  const u64 wall = __rdtsc(), ran = thread_cpu_ns();
  const u64 away = (wall - a.wall_ticks) - std::min(cpu.slept_ticks - a.slept_ticks, wall - a.wall_ticks);
  const u64 ready_ns = scale_.to_ns(away), ran_ns = ran - a.cpu_ns;
  if (ready_ns > ran_ns) a.stolen_ns += ready_ns - ran_ns;
  a.wall_ticks = wall, a.slept_ticks = cpu.slept_ticks, a.cpu_ns = ran;
  publish_steal(cpu, a.stolen_ns);
}

void Kvm::halted(cpu::Vcpu& cpu) {
  StealTime* const shared = steal_time(cpu);
  if (!shared) return;
  std::atomic_ref{shared->preempted}.store(kPreempted);
  wrote(cpu, cpu.msr.kvm_steal_time & ~kEnabled);
}

void Kvm::resumed(cpu::Vcpu& cpu) {
  StealTime* const shared = steal_time(cpu);
  if (!shared) return;
  if (std::atomic_ref{shared->preempted}.exchange(0) & kFlushTlb) cpu::tlb_flush_all(cpu);
  reckon(cpu);
}

void Kvm::ticked(cpu::Vcpu& cpu) { reckon(cpu); }

}  // namespace trapline::para
