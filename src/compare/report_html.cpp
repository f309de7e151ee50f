// The page: plots as SVG, tables, and what each number is. No script, nothing from elsewhere.
#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include "base/html.h"
#include "compare/page_style.h"
#include "compare/plot.h"
#include "compare/report.h"

namespace trapline::compare {

namespace {

using channel::SensitiveCounts;
using channel::Way;

std::string seconds(double s) { return s < 0.1 ? fmt::format("{:.0f} ms", s * 1000) : fmt::format("{:.2f} s", s); }

// 1234567 as "1 234 567".
std::string grouped(u64 n) {
  std::string digits = std::to_string(n), out;
  for (std::size_t i = 0; i < digits.size(); i++) {
    if (i && (digits.size() - i) % 3 == 0) out += "\u202f";
    out += digits[i];
  }
  return out;
}

std::string heading(const Comparison& c, const Setting& s) {
  return fmt::format(
      "<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'>"
      "<meta name='viewport' content='width=device-width, initial-scale=1'><title>trapline compare</title>"
      "<style>{}</style></head><body>\n<header><h1>One guest, {} techniques</h1>"
      "<p>{}; {} vCPU{}, {} MiB of RAM; {} timed round{}. Trapline {} on {}.</p></header>\n<main>\n",
      kPageStyle, std::count_if(c.all.begin(), c.all.end(), [](const Measured& m) { return m.ran(); }),
      html_escaped(s.guest), s.cpus, s.cpus == 1 ? "" : "s", s.memory / MiB, s.rounds, s.rounds == 1 ? "" : "s",
      html_escaped(s.version), html_escaped(s.host));
}

std::string verdict(const Comparison& c) {
  const std::string reference = html_escaped(c.all[c.reference].technique.name());
  std::string html = fmt::format("<section class='verdict{}'>", c.agree() ? "" : " bad");
  if (c.agree())
    html += fmt::format(
        "<p><b>The guest said the same under each technique</b>: {} lines are compared, and the exit "
        "code, which was {}.</p>",
        compared_lines(c.all[c.reference].counted).size(), c.all[c.reference].counted.code);
  for (const Measured& m : c.all) {
    if (!m.differs.empty())
      html += fmt::format("<p><b>{} differs from {}</b>: {}</p>", html_escaped(m.technique.name()), reference,
                          html_escaped(m.differs));
    if (!m.ran())
      html += fmt::format("<p>{} was not run: {}</p>", html_escaped(m.technique.name()), html_escaped(m.impossible));
  }
  return html + "</section>\n";
}

std::string times(const Comparison& c) {
  std::vector<Bar> all;
  for (const Measured& m : c.all) {
    if (!m.ran()) continue;
    const Spread time = m.seconds();
    const double boot = std::min(m.boot().median, time.median);
    Bar bar{m.technique.name(), seconds(time.median), {}, time.least, time.most, {}};
    bar.segments = {{boot, "boot", "to the first line of output: " + seconds(boot)},
                    {time.median - boot, "rest", "after it: " + seconds(time.median - boot)}};
    for (const GuestRun& run : m.timed) bar.points.push_back(run.seconds);
    all.push_back(std::move(bar));
  }
  return "<section><h2>Time</h2><p class='hint'>Median; a point is a run, the whisker goes from the fastest to the "
         "slowest. Where the interpreter is the engine, its one run counts too.</p><p class='legend'><span><i "
         "class='boot'></i>to the first line of output (boot)</span><span><i class='rest'></i>after it</span></p>" +
         bars(all, {.unit = "s"}, "Time of each technique") + "</section>\n";
}

std::string parts(const Comparison& c) {
  const std::vector<Part> names = median_parts(c.all[c.reference]);
  if (names.size() < 2) return {};
  std::string html =
      "<section><h2>Part by part</h2><p class='hint'>Medians of the parts of the built-in workload, each with a scale "
      "of "
      "its own: the host takes the time between the guest's lines.</p><div class='parts'>";
  for (const Part& part : names) {
    std::vector<Bar> all;
    for (const Measured& m : c.all) {
      if (!m.ran()) continue;
      for (const Part& own : median_parts(m))
        if (own.name == part.name)
          all.push_back(
              {m.technique.name(), seconds(own.seconds), {{own.seconds, "rest", seconds(own.seconds)}}, 0, 0, {}});
    }
    html +=
        fmt::format("<div><h3>{}</h3>{}</div>", html_escaped(part.name),
                    bars(all, {.width = 420, .name_width = 120, .label_width = 70, .row = 22, .unit = {}}, part.name));
  }
  return html + "</div></section>\n";
}

std::vector<Segment> segments_of(const Row& e) {
  std::vector<Segment> all;
  for (unsigned w = 0; w < SensitiveCounts::kWays; w++)
    if (e.ways[w])
      all.push_back({static_cast<double>(e.ways[w]), name(static_cast<Way>(w)),
                     fmt::format("{}: {}", name(static_cast<Way>(w)), grouped(e.ways[w]))});
  if (e.direct)
    all.push_back({static_cast<double>(e.direct), "direct", fmt::format("directly: about {}", grouped(e.direct))});
  return all;
}

constexpr const char* kWaysLegend =
    "<p class='legend'><span><i class='inlined'></i>inlined in translated code</span><span><i "
    "class='called'></i>called "
    "from it</span><span><i class='interpreted'></i>interpreted</span><span><i class='trapped'></i>trapped in a "
    "cage</span><span><i class='direct'></i>run directly (derived)</span></p>";

std::string critical(const Comparison& c) {
  std::vector<Bar> all;
  for (const Measured& m : c.all) {
    if (!m.ran()) continue;
    Row sum{};
    for (const Row& row : rows_of(c, m)) {
      if (row.cls != isa::Class::critical) continue;
      for (unsigned w = 0; w < SensitiveCounts::kWays; w++) sum.ways[w] += row.ways[w];
      sum.direct += row.direct;
    }
    all.push_back({m.technique.name(), grouped(sum.total()), segments_of(sum), 0, 0, {}});
  }
  return std::string{
             "<section><h2>Critical instructions</h2><p class='hint'>How often the guest executed an instruction "
             "that is sensitive and does not trap in ring 3, and by which way it went.</p>"} +
         kWaysLegend + bars(all, {.unit = "executed"}, "Critical instructions by way") + "</section>\n";
}

std::string cell(const Row* e) {
  if (!e) return "<td></td>";
  std::string ways;
  const double total = static_cast<double>(e->total());
  for (const Segment& s : segments_of(*e))
    ways += fmt::format("<i class='{}' style='width:{:.1f}%' title='{}'></i>", s.cls, 100 * s.value / total,
                        html_escaped(s.title));
  return fmt::format("<td>{}<span class='way'>{}</span></td>", grouped(e->total()), ways);
}

std::string instructions_of_class(const Comparison& c, isa::Class cls) {
  std::vector<std::pair<const Measured*, std::vector<Row>>> columns;
  std::vector<const Row*> lines;
  for (const Measured& m : c.all)
    if (m.ran()) columns.emplace_back(&m, rows_of(c, m));
  for (const auto& [m, rows] : columns)
    for (const Row& row : rows)
      if (row.cls == cls && std::none_of(lines.begin(), lines.end(), [&](const Row* l) { return l->same(row); }))
        lines.push_back(&row);
  if (lines.empty()) return "<p>None was executed.</p>";
  std::string html =
      "<div class='scroll'><table><thead><tr><th>instruction</th><th class='left'>ring</th><th class='left'>by the "
      "table"
      "</th>";
  for (const auto& [m, rows] : columns) html += fmt::format("<th>{}</th>", html_escaped(m->technique.name()));
  html += "</tr></thead><tbody>";
  for (const Row* line : lines) {
    html +=
        fmt::format("<tr><td title='{}'>{}</td><td class='left'>{}</td><td class='left'>{}</td>",
                    html_escaped(line->row->what), html_escaped(line->row->name),
                    line->ring == isa::Ring::ring0 ? 0 : 3, isa::name(isa::in_ring(*line->row, line->ring).translate));
    for (const auto& [m, rows] : columns) {
      const auto own = std::find_if(rows.begin(), rows.end(), [&](const Row& r) { return r.same(*line); });
      html += cell(own == rows.end() ? nullptr : &*own);
    }
    html += "</tr>";
  }
  return html + "</tbody></table></div>";
}

std::string instructions(const Comparison& c) {
  return "<section><h2>Instruction by instruction</h2><p class='hint'>The critical ones; ‘by the table’ is what the "
         "instruction table says translated code does with it (docs/critical-instructions.md).</p>" +
         std::string{kWaysLegend} + instructions_of_class(c, isa::Class::critical) +
         "<details><summary>Privileged ones, which trap by themselves</summary>" +
         instructions_of_class(c, isa::Class::privileged) + "</details></section>\n";
}

std::string exits(const Comparison& c) {
  const auto counter = [](u64 channel::Counters::*field) {
    return [field](const Measured& m) { return grouped(m.counted.figures->sum.count.*field); };
  };
  const auto cost = [](const Cost& x) { return x.count ? fmt::format("{:.1f} µs", x.microseconds) : std::string{"-"}; };
  using Counters = channel::Counters;
  std::vector<std::pair<const char*, std::function<std::string(const Measured&)>>> lines = {
      {"instructions executed, but for those run directly",
       [](const Measured& m) { return grouped(m.instructions()); }},
      {"requests to the monitor", [](const Measured& m) { return grouped(request_cost(m).count); }},
      {"… mean time of one", [&](const Measured& m) { return cost(request_cost(m)); }},
      {"port reads", counter(&Counters::port_reads)},
      {"port writes", counter(&Counters::port_writes)},
      {"device reads", counter(&Counters::mmio_reads)},
      {"device writes", counter(&Counters::mmio_writes)},
      {"hypercalls", counter(&Counters::hypercalls)},
      {"halts", counter(&Counters::halts)},
      {"interrupts", counter(&Counters::interrupts)},
      {"stops of cages", [](const Measured& m) { return grouped(stop_cost(m).count); }},
      {"… mean time beside guest code of one", [&](const Measured& m) { return cost(stop_cost(m)); }},
      {"page walks", counter(&Counters::page_walks)},
      {"TLB flushes", counter(&Counters::tlb_flushes)},
      {"host code made, bytes", counter(&Counters::host_code_bytes)},
  };
  std::string html =
      "<section><h2>Exits and their cost</h2><p class='hint'>Of the counting run.</p><div class='scroll'>"
      "<table><thead><tr><th></th>";
  for (const Measured& m : c.all)
    if (m.ran()) html += fmt::format("<th>{}</th>", html_escaped(m.technique.name()));
  html += "</tr></thead><tbody>";
  for (const auto& [label, value] : lines) {
    html += fmt::format("<tr><td>{}</td>", label);
    for (const Measured& m : c.all)
      if (m.ran()) html += fmt::format("<td>{}</td>", m.counted.figures ? value(m) : "");
    html += "</tr>";
  }
  return html + "</tbody></table></div></section>\n";
}

std::string memory(const Comparison& c) {
  std::vector<Bar> all;
  for (const Measured& m : c.all)
    if (const auto bytes = m.ran() ? m.memory() : std::nullopt) {
      const double mib = static_cast<double>(*bytes) / static_cast<double>(MiB);
      const std::string label = fmt::format("{:.0f} MiB", mib);
      all.push_back({m.technique.name(), label, {{mib, "memory", label}}, 0, 0, {}});
    }
  if (all.empty()) return {};
  return "<section><h2>Memory beside the guest's</h2><p class='hint'>Peak of the anonymous memory of all processes of "
         "the "
         "VM.</p>" +
         bars(all, {.unit = "MiB"}, "Memory of each technique") + "</section>\n";
}

constexpr const char* kMeaning = R"html(<section><h2>What is measured, and what is derived</h2><dl>
<dt>time, CPU time</dt><dd>Measured by the host from starting the VM's process to its end, in runs that count nothing.
Rounds are interleaved: each technique runs once before any runs again. The interpreter counts its instructions always,
and runs once, counting sensitive ones too.</dd>
<dt>boot</dt><dd>Measured: until the first line of output that is compared. Lines that begin with a kernel's time stamp
are not: they tell of the machine.</dd>
<dt>executed</dt><dd>Measured, in the counting run: each execution in an interpreted block, in translated code, and each
trap in a cage. One that faults or is repeated counts each time.</dd>
<dt>interpreted, inlined, called, trapped</dt><dd>Measured where it happens: interpreted in a block of the interpreter
(code that runs seldom is never translated); inlined as host code on virtual state; called from translated code; run on
the CPU in a cage, where it trapped or entered the host's kernel, and emulated then.</dd>
<dt>directly</dt><dd>Derived, for programs that run in cages: what the interpreter executed of it in ring 3, with the same
interface, less what is counted here. Nobody counts what runs on the CPU itself; what a cage has patched is part of
it.</dd>
<dt>class, by the table</dt><dd>Of the instruction table: the architecture's class in that ring, and what translated code
is made to do. Where blocks are cold, or an operand is not of the usual kind, it is interpreted or called instead.</dd>
<dt>requests</dt><dd>Measured: what the core could not answer by itself. The time is from asking to the answer, the wait
for the other process included.</dd>
<dt>stops of cages</dt><dd>Measured: system calls, page faults, traps and kicks of programs that run directly. The time is
what passed beside guest code.</dd>
<dt>memory</dt><dd>Measured, every 50 ms, in the timed runs: RssAnon of the VM's processes. Guest RAM and translated code
are files in memory and no part of it. A page that cages share with their core counts in each.</dd>
</dl></section>
)html";

}  // namespace

std::string page_of(const Comparison& c, const Setting& s) {
  return heading(c, s) + verdict(c) + times(c) + parts(c) + critical(c) + instructions(c) + exits(c) + memory(c) +
         kMeaning + "</main></body></html>\n";
}

}  // namespace trapline::compare
