#include "base/trace.h"

#include <unistd.h>

#include <array>
#include <utility>

#include "base/write.h"

namespace trapline::trace {

namespace {

constexpr std::array<std::pair<std::string_view, Area>, 12> kAreas{{
    {"cpu", cpu},
    {"mmu", mmu},
    {"exits", exits},
    {"interrupts", interrupts},
    {"exceptions", exceptions},
    {"devices", devices},
    {"msr", msr},
    {"boot", boot},
    {"blocks", blocks},
    {"cages", cages},
    {"clock", clock},
    {"channel", channel},
}};

void to_stderr(std::string_view line) { write_all(STDERR_FILENO, std::string{line} + '\n'); }

Sink g_sink = to_stderr;
thread_local int t_vcpu = -1;

std::string_view name_of(Area area) {
  for (auto& [name, bit] : kAreas)
    if (bit == area) return name;
  return "?";
}

}  // namespace

std::optional<u32> parse(std::string_view areas, std::string* bad) {
  u32 bits = 0;
  while (!areas.empty()) {
    const auto comma = areas.find(',');
    const auto word = areas.substr(0, comma);
    areas = comma == std::string_view::npos ? std::string_view{} : areas.substr(comma + 1);
    if (word.empty()) continue;
    u32 found = 0;
    for (auto& [name, bit] : kAreas)
      if (word == name || word == "all") found |= bit;
    if (!found) {
      if (bad) *bad = std::string{word};
      return std::nullopt;
    }
    bits |= found;
  }
  return bits;
}

std::string_view names() {
  return "cpu, mmu, exits, interrupts, exceptions, devices, msr, boot, blocks, clock, channel, cages, all";
}

void set_sink(Sink sink) { g_sink = sink ? sink : to_stderr; }

void set_vcpu(int index) { t_vcpu = index; }

void emit(Area area, std::string_view text) {
  if (t_vcpu < 0) return g_sink(fmt::format("{}: {}", name_of(area), text));
  g_sink(fmt::format("{}: vcpu{} {}", name_of(area), t_vcpu, text));
}

}  // namespace trapline::trace
