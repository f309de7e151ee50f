#include <fmt/format.h>
#include <sys/utsname.h>

#include <algorithm>
#include <fstream>
#include <iterator>

#include "compare/report.h"

namespace trapline::compare {

namespace {

constexpr std::size_t kMostRows = 12;  // of instructions, in the text

std::string output_of(const Comparison& c, const Measured& m) {
  if (&m == &c.all[c.reference]) return "reference";
  return m.differs.empty() ? "same" : "DIFFERS";
}

std::string times_table(const Comparison& c) {
  std::string text =
      fmt::format("{:<18}{:>9}{:>18}{:>9}{:>9}{:>11}{:>10}{:>10}{:>9}  {}\n", "technique", "time s", "least..most",
                  "CPU s", "boot s", "insns M", "critical", "requests", "memory", "output");
  for (const Measured& m : c.all) {
    if (!m.ran()) {
      text += fmt::format("{:<18}  not run: {}\n", m.technique.name(), m.impossible);
      continue;
    }
    const Spread time = m.seconds();
    text +=
        fmt::format("{:<18}{:>9.2f}{:>18}{:>9.2f}{:>9.2f}{:>11.1f}{:>10}{:>10}{:>9}  {}\n", m.technique.name(),
                    time.median, fmt::format("{:.2f}..{:.2f}", time.least, time.most), m.cpu_seconds().median,
                    m.boot().median, static_cast<double>(m.instructions()) / 1e6, m.of_class(isa::Class::critical),
                    request_cost(m).count, m.memory() ? fmt::format("{} M", *m.memory() / MiB) : "?", output_of(c, m));
  }
  return text;
}

// A line for each critical instruction of any technique, most frequent first, with a column for each technique.
std::string instructions_table(const Comparison& c) {
  struct Line {
    const isa::Row* row;
    isa::Ring ring;
    u64 most = 0;
  };
  std::vector<Line> lines;
  for (const Measured& m : c.all)
    for (const Executed& e : m.executed()) {
      if (e.cls != isa::Class::critical) continue;
      const auto known =
          std::find_if(lines.begin(), lines.end(), [&](const Line& l) { return l.row == e.row && l.ring == e.ring; });
      if (known == lines.end())
        lines.push_back({e.row, e.ring, e.total()});
      else
        known->most = std::max(known->most, e.total());
    }
  std::sort(lines.begin(), lines.end(), [](const Line& a, const Line& b) { return a.most > b.most; });
  std::string text = fmt::format("\n{:<18}{:>5}", "critical", "ring");
  for (const Measured& m : c.all)
    if (m.ran()) text += fmt::format("{:>24}", m.technique.name());
  text += '\n';
  for (std::size_t i = 0; i < std::min(lines.size(), kMostRows); i++) {
    text += fmt::format("{:<18}{:>5}", lines[i].row->name, lines[i].ring == isa::Ring::ring0 ? 0 : 3);
    for (const Measured& m : c.all) {
      if (!m.ran()) continue;
      std::string cell = "-";
      for (const Executed& e : m.executed()) {
        if (e.row != lines[i].row || e.ring != lines[i].ring) continue;
        const auto way = std::max_element(std::begin(e.ways), std::end(e.ways)) - std::begin(e.ways);
        cell = fmt::format("{} {}", e.total(), name(static_cast<channel::Way>(way)));
      }
      text += fmt::format("{:>24}", cell);
    }
    text += '\n';
  }
  if (lines.size() > kMostRows)
    text += fmt::format("... and {} more: --json or --html FILE shows all\n", lines.size() - kMostRows);
  return text;
}

}  // namespace

std::string host_in_words() {
  std::string cpu = "unknown CPU";
  std::ifstream info{"/proc/cpuinfo"};
  for (std::string line; std::getline(info, line);)
    if (line.starts_with("model name")) {
      cpu = line.substr(std::min(line.find(": ") + 2, line.size()));
      break;
    }
  utsname u{};
  return ::uname(&u) == 0 ? fmt::format("{}, Linux {}", cpu, u.release) : cpu;
}

std::string text_of(const Comparison& c, const Setting& s) {
  std::string text = fmt::format("{}; {} vCPU{}, {} MiB; {} round{} on {}\n\n", s.guest, s.cpus, s.cpus == 1 ? "" : "s",
                                 s.memory / MiB, s.rounds, s.rounds == 1 ? "" : "s", s.host);
  text += times_table(c);
  text += instructions_table(c);
  for (const Measured& m : c.all)
    if (!m.differs.empty())
      text +=
          fmt::format("\n{} differs from {}: {}\n", m.technique.name(), c.all[c.reference].technique.name(), m.differs);
  return text;
}

}  // namespace trapline::compare
