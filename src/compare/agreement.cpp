#include "compare/agreement.h"

#include <fmt/format.h>

#include <algorithm>

namespace trapline::compare {

namespace {

std::string shown(const std::optional<std::string>& line) {
  constexpr std::size_t kMost = 120;
  if (!line) return "no line there";
  std::string text = line->substr(0, kMost);
  for (char& c : text)
    if (c < ' ' || c > '~') c = '?';
  return fmt::format("'{}{}'", text, line->size() > kMost ? "..." : "");
}

}  // namespace

bool tells_of_machine(std::string_view line) {
  if (line.find_first_not_of(" \t") == std::string_view::npos) return true;
  // What Linux writes to Xen's console before its log has a clock.
  if (line == "mapping kernel into physical memory" || line == "about to get started...") return true;
  if (line.front() != '[') return false;
  const auto end = line.find(']');
  if (end == std::string_view::npos) return false;
  std::string_view stamp = line.substr(1, end - 1);
  stamp.remove_prefix(std::min(stamp.find_first_not_of(' '), stamp.size()));
  const auto dot = stamp.find('.');
  if (dot == std::string_view::npos || dot == 0 || dot + 7 != stamp.size()) return false;
  return stamp.find_first_not_of("0123456789.") == std::string_view::npos;
}

std::vector<const Line*> compared_lines(const GuestRun& run) {
  std::vector<const Line*> lines;
  for (const Line& line : run.lines)
    if (!tells_of_machine(line.text)) lines.push_back(&line);
  return lines;
}

std::optional<Difference> difference(const GuestRun& first, const GuestRun& second) {
  const auto a = compared_lines(first), b = compared_lines(second);
  for (std::size_t i = 0; i < std::max(a.size(), b.size()); i++) {
    if (i < a.size() && i < b.size() && a[i]->text == b[i]->text) continue;
    const auto at = [i](const auto& lines) { return i < lines.size() ? std::optional{lines[i]->text} : std::nullopt; };
    return Difference{i + 1, at(a), at(b)};
  }
  if (first.code == second.code) return std::nullopt;
  return Difference{0, std::to_string(first.code), std::to_string(second.code)};
}

std::string describe(const Difference& d) {
  if (d.line == 0) return fmt::format("exit codes: {}, but {}", *d.first, *d.second);
  return fmt::format("line {}: {}, but {}", d.line, shown(d.first), shown(d.second));
}

}  // namespace trapline::compare
