#include "monitor/guest_time.h"

#include <cpuid.h>

#include "base/types.h"

namespace trapline::monitor {

namespace {

constexpr u64 kWindowNs = 10'000'000;

u64 raw_ns() {
  timespec t{};
  ::clock_gettime(CLOCK_MONOTONIC_RAW, &t);
  return static_cast<u64>(t.tv_sec) * 1'000'000'000 + static_cast<u64>(t.tv_nsec);
}

// Both clocks at one moment: the try with the least between the two TSC reads.
void sample(u64* tsc, u64* ns) {
  u64 best = ~u64{0};
  for (int i = 0; i < 8; i++) {
    const u64 before = __rdtsc(), now = raw_ns(), after = __rdtsc();
    if (after - before >= best) continue;
    best = after - before;
    *tsc = before + (after - before) / 2;
    *ns = now;
  }
}

// What the CPU or an outer hypervisor states exactly; 0: nothing.
u64 stated_khz() {
  u32 a = 0, b = 0, c = 0, d = 0;
  __cpuid(0, a, b, c, d);
  if (a >= 0x15) {
    __cpuid_count(0x15, 0, a, b, c, d);
    if (a && b && c) return static_cast<u64>(static_cast<u128>(c) * b / a / 1000);
  }
  __cpuid(1, a, b, c, d);
  if (!(c >> 31)) return 0;
  __cpuid(0x40000000, a, b, c, d);
  if (a < 0x40000010) return 0;
  __cpuid(0x40000010, a, b, c, d);
  return a;
}

}  // namespace

void TscMeasurement::begin() { sample(&tsc_, &ns_); }

u64 TscMeasurement::khz() {
  for (u64 passed; (passed = raw_ns() - ns_) < kWindowNs;) {
    const timespec rest{0, static_cast<long>(kWindowNs - passed)};
    ::nanosleep(&rest, nullptr);
  }
  u64 tsc = 0, ns = 0;
  sample(&tsc, &ns);
  const u64 measured = static_cast<u64>(static_cast<u128>(tsc - tsc_) * 1'000'000 / (ns - ns_));
  const u64 stated = stated_khz();
  // A statement is exact, unless the host scales its guests' TSC without saying so.
  return stated && stated / 1000 <= measured / 990 && measured / 1010 <= stated / 1000 ? stated : measured;
}

}  // namespace trapline::monitor
