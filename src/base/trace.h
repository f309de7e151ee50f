// TRACE(area, "format {}", args...): one branch when the area is off. Lines carry no host address and no wall clock,
// so that two runs with --clock=instructions are identical byte for byte.
#pragma once

#include <fmt/format.h>

#include <optional>
#include <string>
#include <string_view>

#include "base/types.h"

namespace trapline::trace {

enum Area : u32 {
  cpu = 1u << 0,         // every retired instruction with its address (slow)
  mmu = 1u << 1,         // page walks, TLB flushes
  exits = 1u << 2,       // port and MMIO accesses, halts: everything that leaves the engine
  interrupts = 1u << 3,  // raised, accepted, EOI
  exceptions = 1u << 4,  // faults delivered to the guest
  devices = 1u << 5,     // device register accesses and events
  msr = 1u << 6,         // RDMSR, WRMSR, CPUID
  boot = 1u << 7,        // what the boot loader placed where
  blocks = 1u << 8,      // decode and invalidation of code blocks
  clock = 1u << 9,       // timers armed and fired
  channel = 1u << 10,    // messages between monitor and core
  cages = 1u << 11,      // direct execution: what runs in cages, and why it leaves them
};

inline u32 mask = 0;  // set before threads start

// The names users give to --trace, comma separated ("all" too). On an unknown name returns nothing and stores it in
// *bad.
std::optional<u32> parse(std::string_view areas, std::string* bad);
std::string_view names();  // "cpu, mmu, ..." for help texts

// Where lines go. Default: standard error. Called with whole lines (no newline); must be callable from any thread.
using Sink = void (*)(std::string_view line);
void set_sink(Sink sink);
void emit(Area area, std::string_view text);
// Lines of this thread are about this vCPU from now on and say so: "exits: vcpu0 ...". Less than 0: about none.
void set_vcpu(int index);

}  // namespace trapline::trace

#define TRACE(area, ...)                                                          \
  do {                                                                            \
    if (::trapline::trace::mask & ::trapline::trace::area) [[unlikely]]           \
      ::trapline::trace::emit(::trapline::trace::area, fmt::format(__VA_ARGS__)); \
  } while (0)
