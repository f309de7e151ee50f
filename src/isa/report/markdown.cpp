#include <fmt/format.h>

#include "isa/report/report.h"

namespace trapline::isa::report {

namespace {

// Markdown's own signs, as they appear in instruction forms.
std::string escaped(std::string_view text) {
  std::string out;
  for (char c : text) {
    if (c == '|' || c == '*' || c == '_' || c == '<') out += '\\';
    out += c;
  }
  return out;
}

std::string classes(const Row& row, Ring ring) {
  const Class c = in_ring(row, ring).cls;
  return c == Class::critical ? "**critical**" : std::string{name(c)};
}

std::string both(Lowering ring0, Lowering ring3) {
  return ring0 == ring3 ? std::string{name(ring0)} : fmt::format("{} / {}", name(ring0), name(ring3));
}

}  // namespace

std::string markdown() {
  std::string out =
      "| instruction | sensitive | ring 0 | ring 3 | what ring 3 of a host does | translate | patch | cage | modes |\n"
      "| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n";
  for (const Row& row : table())
    out += fmt::format("| {}{} | {} | {} | {} | {} | {} | {} | {} | {} |\n", escaped(row.name),
                       row.robin_irvine ? " (R)" : "", name(row.sensitivity), classes(row, Ring::ring0),
                       classes(row, Ring::ring3), escaped(effects(row)), both(row.ring0.translate, row.ring3.translate),
                       both(row.ring0.patch, row.ring3.patch), escaped(cage(row)), modes(row));
  out += "\nWhat each one is, why it has its class, and where it is described:\n\n";
  for (const Row& row : table()) {
    out +=
        fmt::format("- **{}**: {}. Ring 0: {}", escaped(row.name), escaped(row.what), escaped(why(row, Ring::ring0)));
    if (why(row, Ring::ring3) != why(row, Ring::ring0))
      out += fmt::format(" Ring 3: {}", escaped(why(row, Ring::ring3)));
    if (!row.para.empty()) out += fmt::format(" Paravirtualized: {}.", escaped(row.para));
    out += fmt::format(" *{}*\n", row.manual);
  }
  return out;
}

}  // namespace trapline::isa::report
