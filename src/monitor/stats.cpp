#include "monitor/stats.h"

#include <fmt/format.h>

#include <iterator>

namespace trapline::monitor {

namespace {

using Counters = channel::Counters;
constexpr const char* kExceptions[32] = {"#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF", "9",   "#TS",
                                         "#NP", "#SS", "#GP", "#PF", "15",  "#MF", "#AC", "#MC", "#XM", "#VE", "#CP"};

void add(Counters& sum, const Counters& c) {
  sum.port_reads += c.port_reads, sum.port_writes += c.port_writes, sum.mmio_reads += c.mmio_reads,
      sum.mmio_writes += c.mmio_writes;
  sum.halts += c.halts, sum.yields += c.yields, sum.interrupts += c.interrupts, sum.nmis += c.nmis;
  for (int i = 0; i < 32; i++) sum.exceptions[i] += c.exceptions[i];
  sum.page_walks += c.page_walks, sum.tlb_flushes += c.tlb_flushes;
  sum.blocks_decoded += c.blocks_decoded, sum.blocks_invalidated += c.blocks_invalidated;
  sum.instructions_decoded += c.instructions_decoded;
  sum.blocks_translated += c.blocks_translated, sum.instructions_translated += c.instructions_translated;
  sum.translating_ns += c.translating_ns;
  sum.cage_calls += c.cage_calls, sum.cage_faults += c.cage_faults, sum.cage_traps += c.cage_traps;
  sum.cage_kicks += c.cage_kicks, sum.cage_inside += c.cage_inside, sum.cage_beside += c.cage_beside;
  sum.cage_promotions += c.cage_promotions, sum.cage_demotions += c.cage_demotions;
}

}  // namespace

std::string stats_text(const std::vector<channel::VcpuStats>& vcpus, double seconds) {
  std::string text;
  const auto out = std::back_inserter(text);
  Counters sum{};
  u64 retired = 0;
  for (const auto& v : vcpus) {
    add(sum, v.count);
    retired += v.retired;
  }
  const double s = seconds > 0 ? seconds : 1e-9;
  const auto line = [&](const char* name, u64 value) {
    fmt::format_to(out, "  {:24}{:>16}{:>14.0f} /s\n", name, value, static_cast<double>(value) / s);
  };
  fmt::format_to(out, "statistics: {} instructions in {:.3f} s: {:.1f} MIPS\n", retired, seconds,
                 static_cast<double>(retired) / s / 1e6);
  if (vcpus.size() > 1)
    for (std::size_t i = 0; i < vcpus.size(); i++)
      fmt::format_to(out, "  vcpu {:<19}{:>16} instructions\n", i, vcpus[i].retired);
  line("exits: port reads", sum.port_reads);
  line("exits: port writes", sum.port_writes);
  line("exits: device reads", sum.mmio_reads);
  line("exits: device writes", sum.mmio_writes);
  line("exits: halts", sum.halts);
  if (sum.yields) line("spins that stepped aside", sum.yields);
  line("interrupts", sum.interrupts);
  line("NMIs", sum.nmis);
  for (int i = 0; i < 32; i++)
    if (sum.exceptions[i])
      line(fmt::format("exception {}", kExceptions[i] ? kExceptions[i] : std::to_string(i).c_str()).c_str(),
           sum.exceptions[i]);
  line("page walks", sum.page_walks);
  line("TLB flushes", sum.tlb_flushes);
  line("blocks decoded", sum.blocks_decoded);
  line("blocks invalidated", sum.blocks_invalidated);
  line("instructions decoded", sum.instructions_decoded);
  if (sum.blocks_translated) {
    line("blocks translated", sum.blocks_translated);
    line("instructions translated", sum.instructions_translated);
    const double t = static_cast<double>(sum.translating_ns) / 1e9;
    fmt::format_to(out, "  translating took {:.3f} s: {:.2f} million instructions a second\n", t,
                   t > 0 ? static_cast<double>(sum.instructions_translated) / t / 1e6 : 0.0);
  }
  if (const u64 stops = sum.cage_calls + sum.cage_faults + sum.cage_traps + sum.cage_kicks) {
    line("cages: promotions", sum.cage_promotions);
    line("cages: demotions", sum.cage_demotions);
    line("cages: system calls", sum.cage_calls);
    line("cages: page faults", sum.cage_faults);
    line("cages: other traps", sum.cage_traps);
    line("cages: kicks", sum.cage_kicks);
    const double all = static_cast<double>(sum.cage_inside + sum.cage_beside);
    fmt::format_to(out, "  of the time with cages {:.0f} % was guest code; {:.0f} TSC ticks beside it a stop\n",
                   100.0 * static_cast<double>(sum.cage_inside) / (all > 0 ? all : 1),
                   static_cast<double>(sum.cage_beside) / static_cast<double>(stops));
  }
  return text;
}

}  // namespace trapline::monitor
