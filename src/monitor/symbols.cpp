#include "monitor/symbols.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

namespace trapline::monitor {

namespace {

constexpr u64 kFarthest = 1 * MiB;  // beyond it, the nearest symbol says nothing

bool is_hex(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

}  // namespace

Symbols Symbols::parse(std::string_view text) {
  Symbols s;
  while (!text.empty()) {
    const auto end = text.find('\n');
    const auto line = text.substr(0, end);
    text = end == std::string_view::npos ? std::string_view{} : text.substr(end + 1);
    u64 address = 0;
    const auto [after, error] = std::from_chars(line.data(), line.data() + line.size(), address, 16);
    const auto rest = line.substr(static_cast<std::size_t>(after - line.data()));
    if (error != std::errc{} || rest.size() < 4 || rest[0] != ' ' || rest[2] != ' ') continue;
    s.entries_.push_back({Gva{address}, std::string{rest.substr(3)}});
  }
  std::stable_sort(s.entries_.begin(), s.entries_.end(),
                   [](const Entry& a, const Entry& b) { return a.address < b.address; });
  return s;
}

std::string Symbols::name(Gva address) const {
  auto after =
      std::upper_bound(entries_.begin(), entries_.end(), address, [](Gva a, const Entry& e) { return a < e.address; });
  if (after == entries_.begin()) return {};
  const Entry& e = *std::prev(after);
  if (address - e.address > kFarthest) return {};
  return fmt::format("{}+{:#x}", e.name, address - e.address);
}

std::string present(std::string_view report, const Symbols& symbols) {
  std::string out;
  for (std::size_t i = 0; i < report.size(); i++) {
    const char c = report[i];
    if (c != '@') {
      out.push_back(c == '\n' || (c >= ' ' && c <= '~') ? c : '?');
      continue;
    }
    std::size_t end = i + 1;
    while (end < report.size() && end - i <= 16 && is_hex(report[end])) end++;
    const auto digits = report.substr(i + 1, end - i - 1);
    u64 address = 0;
    std::from_chars(digits.data(), digits.data() + digits.size(), address, 16);
    out.append(digits);
    if (const auto name = symbols.name(Gva{address}); !digits.empty() && !name.empty()) out.append(" <" + name + ">");
    i = end - 1;
  }
  return out;
}

}  // namespace trapline::monitor
