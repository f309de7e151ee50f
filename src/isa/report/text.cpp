// For people: aligned, and coloured where asked for.
#include <fmt/format.h>

#include "isa/report/report.h"
#include "isa/verify/host_features.h"

namespace trapline::isa::report {

namespace {

constexpr std::size_t kWidth = 100;

struct Paint {
  bool on;
  std::string operator()(const char* code, std::string_view text) const {
    return on ? fmt::format("\x1b[{}m{}\x1b[0m", code, text) : std::string{text};
  }
  std::string bold(std::string_view text) const { return (*this)("1", text); }
  std::string dim(std::string_view text) const { return (*this)("2", text); }
  std::string cls(Class c, std::string_view text) const {
    return (*this)(c == Class::critical ? "31" : c == Class::privileged ? "33" : "32", text);
  }
};

// Words broken at `kWidth`, continued under column `indent`.
std::string wrapped(std::string_view text, std::size_t indent) {
  std::string out;
  std::size_t column = indent;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(' '), text.size());
    const std::string_view word = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (column + word.size() > kWidth && column > indent) {
      out += '\n' + std::string(indent, ' ');
      column = indent;
    } else if (column > indent) {
      out += ' ', column++;
    }
    out += word;
    column += word.size();
  }
  return out;
}

// Padding is counted before colours are added.
std::string cell(std::string_view plain, std::size_t width) {
  return std::string(plain.size() < width ? width - plain.size() : 0, ' ');
}

std::string field(std::string_view label, std::string_view text) {
  return fmt::format("{:<14}{}\n", label, wrapped(text, 14));
}

std::string joined_names(const std::vector<const Row*>& rows) {
  std::string out;
  for (const Row* row : rows) {
    std::string name{row->name};
    for (char& c : name)
      if (c == ' ') c = '_';  // one word for the line breaker
    out += (out.empty() ? "" : "; ") + name;
  }
  return out;
}

std::string unjoined(std::string text) {
  for (char& c : text)
    if (c == '_') c = ' ';
  return text;
}

std::string class_word(const Row& row, Ring ring, HostFeatures host) {
  const Class here = class_on(row, ring, host);
  return fmt::format("{}{}", name(here), here == in_ring(row, ring).cls ? "" : "*");
}

std::string_view short_sensitivity(Sensitivity s) {
  constexpr std::string_view text[] = {"-", "control", "behaviour", "both"};
  return text[static_cast<u8>(s)];
}

std::string heading(const Report& report, const Paint& paint) {
  const Verdict v = verdict(report.host);
  std::string out = field("host", report.host_name), found;
  for (Feature f : present(report.host)) found += fmt::format("{}{}", found.empty() ? "" : ", ", name(f));
  out += field("features", found.empty() ? "none of those that matter" : found);
  out += paint.bold(field(
      "verdict",
      v.virtualizable()
          ? fmt::format("virtualizable by trap-and-emulate: all {} sensitive instructions trap in ring 3", v.sensitive)
          : fmt::format("not virtualizable by trap-and-emulate: {} of {} sensitive instructions and forms "
                        "do not trap in ring 3 (Popek and Goldberg, theorem 1)",
                        v.critical.size(), v.sensitive)));
  if (!v.critical.empty()) out += unjoined(field("because of", joined_names(v.critical)));
  if (!v.made_to_trap.empty()) out += unjoined(field("saved here", joined_names(v.made_to_trap)));
  return out;
}

}  // namespace

std::string text(const Report& report, bool colour) {
  const Paint paint{colour};
  std::string out = heading(report, paint) + '\n';
  const bool ring0 = report.ring != Ring::ring3, ring3 = report.ring != Ring::ring0;
  std::string head = fmt::format("{:<16}{:<11}", "instruction", "sensitive");
  if (ring0) head += fmt::format("{:<13}", "ring 0");
  if (ring3) head += fmt::format("{:<13}", "ring 3");
  head += fmt::format("{:<13}{:<12}{:<12}{}", "in ring 3", "translate", kPatchBuilt ? "patch" : "(patch)",
                      kCageBuilt ? "cage" : "(cage)");
  out += paint.bold(head) + '\n';
  bool starred = false;
  for (const Row* row : report.rows) {
    const InRing& lowered = in_ring(*row, report.ring.value_or(Ring::ring0));
    std::string line = fmt::format("{:<16}{:<11}", row->name, short_sensitivity(row->sensitivity));
    for (Ring ring : {Ring::ring0, Ring::ring3}) {
      if (!(ring == Ring::ring0 ? ring0 : ring3)) continue;
      const std::string word = class_word(*row, ring, report.host);
      starred |= word.back() == '*';
      line += paint.cls(class_on(*row, ring, report.host), word) + cell(word, 13);
    }
    line += fmt::format("{:<13}{:<12}{:<12}{}", name(effect_on(*row, report.host)), name(lowered.translate),
                        name(lowered.patch), name(row->cage));
    out += line + '\n';
  }
  out += fmt::format("\n{} rows.", report.rows.size());
  if (starred) out += " * critical by the architecture; it traps on this host.";
  if (!kPatchBuilt || !kCageBuilt) out += " (In brackets: planned, not built.)";
  out += paint.dim(" trapline isa NAME explains one; --verify runs them all.") + '\n';
  return out;
}

std::string explain(const Row& row, HostFeatures host, const std::vector<verify::Finding>& findings, bool colour) {
  const Paint paint{colour};
  std::string out = paint.bold(fmt::format("{:<14}{}", row.name, row.what)) + '\n';
  std::string sensitive{name(row.sensitivity)};
  if (row.robin_irvine) sensitive += "; among the critical instructions of Robin and Irvine (2000)";
  out += field("sensitivity", sensitive);
  for (Ring ring : {Ring::ring0, Ring::ring3}) {
    const Class here = class_on(row, ring, host);
    std::string label = ring == Ring::ring0 ? "ring 0" : "ring 3";
    std::string text = fmt::format("{}. {}", name(here), why(row, ring));
    if (here != in_ring(row, ring).cls)
      text =
          fmt::format("{} here, {} by the architecture. {}", name(here), name(in_ring(row, ring).cls), why(row, ring));
    out += paint.cls(here, field(label, text));
  }
  out += field("modes", modes(row) + " bit");
  out += field("in ring 3", effects(row));
  for (const Alternative& a : row.effect)
    if (a.feature != Feature::count && a.feature != Feature::always && !verify::about(a.feature).empty())
      out += field("", fmt::format("{}: {}", name(a.feature), verify::about(a.feature)));
  bool first = true;
  for (const verify::Finding& f : findings) {
    const char* mark = f.agreement == verify::Agreement::differs   ? " [NOT what the table says]"
                       : f.agreement == verify::Agreement::not_run ? " [not run]"
                                                                   : "";
    const std::string how = f.variant.empty() ? "" : fmt::format(", {}", f.variant);
    out += field(first ? "on this host" : "", fmt::format("{}{}: {}{}{}{}", verify::name(f.size), how, f.ran,
                                                          f.ran.empty() ? "" : ": ", f.happened, mark));
    first = false;
  }
  const auto lowering = [](Lowering a, Lowering b) {
    return a == b ? fmt::format("{}: {}", name(a), meaning(a))
                  : fmt::format("ring 0 {}: {}; ring 3 {}: {}", name(a), meaning(a), name(b), meaning(b));
  };
  out += field("translate", lowering(row.ring0.translate, row.ring3.translate));
  const auto planned = [](bool built) { return built ? "" : "planned, not built: "; };
  out += field("patch", planned(kPatchBuilt) + lowering(row.ring0.patch, row.ring3.patch));
  out += field("cage, ring 3", fmt::format("{}{}: {}", planned(kCageBuilt), cage(row), meaning(row.cage)));
  if (!row.para.empty()) out += field("para", row.para);
  out += field("manual", row.manual);
  return out;
}

std::string verification(const std::vector<verify::Finding>& findings, bool colour) {
  using verify::Agreement;
  const Paint paint{colour};
  std::string out =
      paint.bold(fmt::format("{:<9}{:<16}{:<8}{:<10} {}", "", "instruction", "mode", "expected", "happened")) + '\n';
  unsigned counts[3] = {};
  for (const verify::Finding& f : findings) {
    counts[static_cast<u8>(f.agreement)]++;
    const char* word = f.agreement == Agreement::agrees    ? "ok"
                       : f.agreement == Agreement::differs ? "MISMATCH"
                                                           : "not run";
    const char* code = f.agreement == Agreement::agrees ? "32" : f.agreement == Agreement::differs ? "1;31" : "33";
    const std::string variant = f.variant.empty() ? "" : fmt::format(" ({})", f.variant);
    out += fmt::format("{}{:<16}{:<8}{:<10} {}: {}{}\n", paint(code, word) + cell(word, 9), f.row->name,
                       verify::name(f.size), name(f.expected), f.ran, f.happened, variant);
  }
  out += fmt::format("{} as the table says, {} not run, {} mismatches\n", counts[0], counts[2], counts[1]);
  return out;
}

}  // namespace trapline::isa::report
