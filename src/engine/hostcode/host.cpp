#include "engine/hostcode/host.h"

#include <sys/auxv.h>
#include <x86intrin.h>

#include <algorithm>

#include "base/shadow_stack.h"

namespace trapline::engine::hostcode {

namespace {

constexpr unsigned long kHwcap2Fsgsbase = 2;  // <asm/hwcap2.h>
// Between one instruction (3 cycles on everything since Haswell and Zen 3) and microcode (18 and more on Zen 1 and 2).
constexpr double kMostCycles = 12;

// A chain of PEXTs whose mask has as many bits as a page number.
__attribute__((target("bmi2"))) u64 time_chain(unsigned rounds) {
  u64 x = ~u64{0};
  const u64 start = __rdtsc();
  for (unsigned i = 0; i < rounds; i++) {
    x = _pext_u64(x, u64{0xfffffffff} << 12) | ~u64{0} << 20;
    asm volatile("" : "+r"(x));
  }
  return __rdtsc() - start;
}

}  // namespace

double pext_cycles() {
  if (!__builtin_cpu_supports("bmi2")) return 0;
  static const double cycles = [] {
    constexpr unsigned kRounds = 256;
    u64 least = ~u64{0};
    for (int i = 0; i < 8; i++) least = std::min(least, time_chain(kRounds));  // one of them is not interrupted
    return std::max(1.0, static_cast<double>(least) / kRounds - 1);            // without the OR
  }();
  return cycles;
}

HostWays host_ways(const DebugOptions& without) {
  return {
      .gs_base = (getauxval(AT_HWCAP2) & kHwcap2Fsgsbase) != 0 && !without.no_gs_base,
      .pext = pext_cycles() < kMostCycles && !without.no_pext,
  };
}

std::string missing_with(bool bmi2, bool shadow_stack) {
  if (!bmi2) return "BMI2";
  if (shadow_stack) return "returns that no shadow stack checks (GLIBC_TUNABLES=glibc.cpu.x86_shstk=off)";
  return {};
}

std::string missing_on_host() { return missing_with(__builtin_cpu_supports("bmi2"), shadow_stack_on()); }

}  // namespace trapline::engine::hostcode
