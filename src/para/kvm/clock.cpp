// kvmclock. All vCPUs are given the same line through the same origin: at VM TSC 0 the system time is 0. So readings on
// different vCPUs agree to the nanosecond and the pages are written once, not on every scheduling.
#include <time.h>

#include <cstring>

#include "base/trace.h"
#include "cpu/code_map.h"
#include "para/kvm/kvm.h"

namespace trapline::para {

namespace {

constexpr u8 kTscStable = 1;
constexpr u64 kNsPerSecond = 1'000'000'000;

// Publishes `value` at `gpa` the way readers expect: version odd, contents, version even. Version is the first field of
// both structures. Other vCPUs may be reading (and a hostile guest writing): the version is ours to advance, but
// nothing here relies on it.
template <class T>
bool publish(cpu::Vcpu& cpu, Gpa gpa, T value) {
  const auto bytes = cpu.ram->bytes(gpa, sizeof(T));
  if (!bytes) return false;
  std::byte* p = bytes->data();
  u32 version;
  std::memcpy(&version, p, 4);
  version = (version | 1) + (version & 1 ? 2 : 0);
  std::memcpy(p, &version, 4);
  std::atomic_thread_fence(std::memory_order_release);
  value.version = version;
  std::memcpy(p + 4, reinterpret_cast<const std::byte*>(&value) + 4, sizeof(T) - 4);
  std::atomic_thread_fence(std::memory_order_release);
  version++;
  std::memcpy(p, &version, 4);
  if (cpu.code)
    cpu.code->written(gpa.frame(), static_cast<u32>(gpa.page_offset()),
                      sizeof(T));  // an engine may have decoded this page
  return true;
}

}  // namespace

// The shift that puts the multiplier into [2^31, 2^32): all 32 bits of it carry precision.
ClockScale ClockScale::from_tsc_khz(u64 tsc_khz) {
  const u64 hz = (tsc_khz ? tsc_khz : 1) * 1000;
  ClockScale s;
  u128 ratio = (u128{kNsPerSecond} << 64) / hz;  // ns per tick, 64.64
  while (ratio >= u128{1} << 64) ratio >>= 1, s.shift++;
  while (ratio < u128{1} << 63) ratio <<= 1, s.shift--;
  s.multiplier = static_cast<u32>(ratio >> 32);
  return s;
}

u64 ClockScale::to_ns(u64 ticks) const {
  const u64 shifted = shift < 0 ? ticks >> -shift : ticks << shift;
  return static_cast<u64>(u128{shifted} * multiplier >> 32);
}

u64 Kvm::wall_ns_from_host(const cpu::Clock& clock) {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  const u64 since_zero = ClockScale::from_tsc_khz(clock.tsc_khz).to_ns(clock.tsc(0));
  return static_cast<u64>(now.tv_sec) * kNsPerSecond + static_cast<u64>(now.tv_nsec) - since_zero;
}

bool Kvm::write_system_time(cpu::Vcpu& cpu) const {
  const u64 msr = cpu.msr.kvm_system_time;
  if (!(msr & 1)) return true;  // disabled
  VcpuTimeInfo info{};
  info.tsc_timestamp = cpu.tsc_shift();  // what the guest's RDTSC showed at VM TSC 0
  info.system_time = 0;
  info.tsc_to_system_mul = scale_.multiplier;
  info.tsc_shift = scale_.shift;
  info.flags = kTscStable;
  TRACE(clock, "kvmclock at {:#x}", msr & ~u64{1});
  return publish(cpu, Gpa{msr & ~u64{1}}, info);
}

bool Kvm::write_wall_clock(cpu::Vcpu& cpu, Gpa gpa) const {
  WallClock wall{};
  wall.sec = static_cast<u32>(wall_ns_ / kNsPerSecond);
  wall.nsec = static_cast<u32>(wall_ns_ % kNsPerSecond);
  return publish(cpu, gpa, wall);
}

void Kvm::tsc_adjusted(cpu::Vcpu& cpu) { write_system_time(cpu); }

}  // namespace trapline::para
