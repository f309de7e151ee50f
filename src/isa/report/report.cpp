#include "isa/report/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <set>

namespace trapline::isa::report {

namespace {

constexpr std::size_t kSuggestions = 4;

std::string lower(std::string_view s) {
  std::string out{s};
  for (char& c : out) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

// Levenshtein's distance, where swapping two neighbours counts as one step.
unsigned distance(const std::string& a, const std::string& b) {
  std::vector<std::vector<unsigned>> d(a.size() + 1, std::vector<unsigned>(b.size() + 1));
  for (unsigned i = 0; i <= a.size(); i++) d[i][0] = i;
  for (unsigned j = 0; j <= b.size(); j++) d[0][j] = j;
  for (std::size_t i = 1; i <= a.size(); i++)
    for (std::size_t j = 1; j <= b.size(); j++) {
      d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
    }
  return d[a.size()][b.size()];
}

bool names(const Row& row, const std::string& wanted) {
  if (lower(row.name) == wanted || slug(row.id) == wanted) return true;
  return std::any_of(row.mnemonics.begin(), row.mnemonics.end(), [&](ZydisMnemonic m) {
    return m != ZYDIS_MNEMONIC_INVALID && wanted == ZydisMnemonicGetString(m);
  });
}

std::vector<std::string> nearest(const std::string& wanted) {
  std::set<std::pair<unsigned, std::string>> all;
  const auto add = [&](const std::string& name) { all.insert({distance(wanted.substr(0, 32), name), name}); };
  for (const Row& row : table()) add(lower(row.name));
  for (unsigned m = 1; m <= ZYDIS_MNEMONIC_MAX_VALUE; m++) add(ZydisMnemonicGetString(static_cast<ZydisMnemonic>(m)));
  std::vector<std::string> out;
  const std::size_t most = std::max<std::size_t>(1, std::min<std::size_t>(wanted.size(), 32) / 3);
  for (const auto& [far, name] : all)
    if (far <= most && out.size() < kSuggestions) out.push_back(name);
  for (std::string& name : out)
    for (char& c : name) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return out;
}

}  // namespace

std::vector<const Row*> select(const Filter& filter, HostFeatures host) {
  std::vector<const Row*> out;
  for (const Row& row : table()) {
    const auto fits = [&](Ring ring) {
      const Class cls = class_on(row, ring, host);
      return filter.cls ? cls == *filter.cls : !filter.ring || cls != Class::innocuous;
    };
    if (filter.ring ? fits(*filter.ring) : fits(Ring::ring0) || fits(Ring::ring3)) out.push_back(&row);
  }
  return out;
}

Verdict verdict(HostFeatures host) {
  Verdict v;
  for (const Row& row : table()) {
    if (row.sensitivity == Sensitivity::none) continue;
    v.sensitive++;
    if (class_on(row, Ring::ring0, host) == Class::critical) v.critical.push_back(&row);
    if (class_on(row, Ring::ring3, host) == Class::critical) v.in_ring3.push_back(&row);
    if (row.ring0.cls == Class::critical && class_on(row, Ring::ring0, host) == Class::privileged)
      v.made_to_trap.push_back(&row);
  }
  return v;
}

Named find(const std::string& name) {
  Named out;
  const std::string wanted = lower(name);
  for (const Row& row : table())
    if (names(row, wanted)) out.rows.push_back(&row);
  if (!out.rows.empty()) return out;
  for (unsigned m = 1; m <= ZYDIS_MNEMONIC_MAX_VALUE; m++)
    if (wanted == ZydisMnemonicGetString(static_cast<ZydisMnemonic>(m))) out.innocuous = true;
  out.unknown = !out.innocuous;
  if (out.unknown) out.nearest = nearest(wanted);
  return out;
}

unsigned mismatches(const std::vector<verify::Finding>& findings) {
  return static_cast<unsigned>(std::count_if(findings.begin(), findings.end(), [](const verify::Finding& f) {
    return f.agreement == verify::Agreement::differs;
  }));
}

std::string_view meaning(Lowering l) {
  constexpr std::string_view text[] = {
      "runs as it is, operands lowered or relocated", "replaced by a few host instructions on virtual state",
      "replaced by a call of its semantic", "replaced by a call of its semantic, and the block ends",
      "not offered by the guest's CPUID: raises the guest's #UD"};
  return text[static_cast<u8>(l)];
}

std::string_view meaning(Cage c) {
  constexpr std::string_view text[] = {
      "runs on the CPU as it is",
      "traps or enters the host kernel by itself; the signal becomes the guest's event",
      "runs, once what it reads has been made the guest's; else patched",
      "made to trap by a host feature before the cage is entered",
      "rewritten before the page may run",
      "a page that holds it at any offset is translated, not run"};
  return text[static_cast<u8>(c)];
}

std::string_view meaning(Effect e) {
  switch (e) {
    case Effect::acts:
      return "executes";
    case Effect::reveals:
      return "executes and shows a value of the host's";
    case Effect::answers:
      return "traps to the host's kernel, which answers with a dummy value: no signal";
    case Effect::ignored:
      return "executes and silently does less than asked";
    case Effect::enters:
      return "enters the host's kernel as a system call";
    case Effect::leaves:
      return "reaches the hypervisor under the host";
    default:
      return "traps";
  }
}

std::string modes(const Row& row) {
  std::string out;
  for (const auto& [bit, text] : {std::pair{kMode16, "16"}, {kMode32, "32"}, {kMode64, "64"}})
    if (row.modes & bit) out += fmt::format("{}{}", out.empty() ? "" : " ", text);
  return out;
}

std::string effects(const Row& row) {
  std::string out;
  for (const Alternative& a : row.effect) {
    if (a.feature == Feature::count) break;
    if (!out.empty()) out += a.feature == Feature::always ? ", else " : ", ";
    out += name(a.effect);
    if (a.feature != Feature::always) out += fmt::format(" {} {}", a.present ? "with" : "without", name(a.feature));
  }
  return out.empty() ? std::string{name(Effect::acts)} : out;
}

std::string cage(const Row& row) {
  std::string out{name(row.cage)};
  if (row.cage_needs != Feature::always)
    out += fmt::format(" with {}, else {}", name(row.cage_needs), name(row.cage_else));
  return out;
}

std::vector<Feature> present(HostFeatures host) {
  std::vector<Feature> out;
  for (unsigned f = 1; f < static_cast<unsigned>(Feature::count); f++)
    if (host.has(static_cast<Feature>(f))) out.push_back(static_cast<Feature>(f));
  return out;
}

}  // namespace trapline::isa::report
