// What `trapline isa` prints: rows of the table, seen through one host's features, and the verdict.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "isa/table.h"
#include "isa/verify/verify.h"

namespace trapline::isa::report {

struct Filter {
  std::optional<Ring> ring;  // rows that are not innocuous there; or of class `cls` there
  std::optional<Class> cls;  // in `ring`, or in either
};

std::vector<const Row*> select(const Filter& filter, HostFeatures host);

// Popek and Goldberg's theorem 1, for a host: trap-and-emulate suffices if every sensitive instruction traps.
struct Verdict {
  std::vector<const Row*> critical;      // on this host, in ring 0: each one breaks the condition
  std::vector<const Row*> in_ring3;      // those that are critical for user code, too
  std::vector<const Row*> made_to_trap;  // critical by the architecture, but they trap on this host
  unsigned sensitive = 0;
  bool virtualizable() const { return critical.empty(); }
};
Verdict verdict(HostFeatures host);

// What the table says of engines that do not exist yet is a plan, and is marked as one. Whoever builds one changes this.
inline constexpr bool kPatchBuilt = false, kCageBuilt = false;

struct Report {
  HostFeatures host = {};
  std::string host_name = {};
  std::vector<const Row*> rows = {};
  std::vector<verify::Finding> findings = {};  // of --verify; empty without
  std::optional<Ring> ring = {};               // the one column to show
};

std::string text(const Report& report, bool colour);
std::string json(const Report& report);
std::string html(const Report& report);

// The table alone, independent of any host: the generated part of docs/critical-instructions.md.
std::string markdown();

// One instruction, in full; `findings` are those of the row.
std::string explain(const Row& row, HostFeatures host, const std::vector<verify::Finding>& findings, bool colour);

// Findings one per line, mismatches marked, and a last line that counts.
std::string verification(const std::vector<verify::Finding>& findings, bool colour);
unsigned mismatches(const std::vector<verify::Finding>& findings);

// Rows that a name means: a row's name, its slug, or a mnemonic. `innocuous`: an instruction without a row.
struct Named {
  std::vector<const Row*> rows;
  bool innocuous = false;
  bool unknown = false;
  std::vector<std::string> nearest;  // where the name is unknown: names a slip or two away, if there are any
};
Named find(const std::string& name);

// "inlined: replaced by a few host instructions on virtual state"
std::string_view meaning(Lowering l);
std::string_view meaning(Cage c);
std::string_view meaning(Effect e);

std::string modes(const Row& row);                // "16 32 64"
std::string effects(const Row& row);              // "#GP if cpuid_off, else reveals"
std::string cage(const Row& row);                 // "armed (cpuid_faulting), else patched"
std::vector<Feature> present(HostFeatures host);  // in the order of the enum

}  // namespace trapline::isa::report
