// A scan's result in the shape that all outputs share: text, JSON, SARIF and HTML are views of it. Also made for the
// code that a guest has executed (--scan-report). The JSON schema is in docs/scan.md.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "isa/table.h"
#include "scan/scan.h"

namespace trapline::scan {

struct ClassCounts {
  u64 critical = 0, privileged = 0, innocuous = 0;
  u64 total() const { return critical + privileged + innocuous; }
  u64& of(isa::Class c) {
    return c == isa::Class::critical ? critical : c == isa::Class::privileged ? privileged : innocuous;
  }
};

// One sensitive instruction.
struct Item {
  u64 address = 0;
  const isa::Row* row = nullptr;
  isa::Class cls = isa::Class::innocuous;
  isa::Ring ring = isa::Ring::ring0;
  isa::CodeSize code_size = isa::CodeSize::bits64;
  std::string confidence;  // "certain", "likely", "speculative"; "hidden" (every offset); "executed"
  int section = -1;        // in Report::sections
  int function = -1;       // in Report::functions
  u64 offset = 0;          // in its section
  u64 function_offset = 0;
  std::vector<u8> bytes;
  std::string text;             // disassembled
  const char* patch = nullptr;  // kind of patch site, if it is in one
  std::string patch_text;
  bool overlaps = false;
  int cpl = -1;  // executed code only
};

struct ReportSection {
  std::string name;
  u64 address = 0, size = 0, file_offset = 0;
  ClassCounts counts;
  std::string cells;  // what each of up to kCells equal parts mostly is: c, l, s (code by confidence), p, d
};

struct ReportFunction {
  std::string name;
  u64 address = 0, size = 0;
  int section = -1;
  ClassCounts counts;
};

struct Report {
  std::string name, format, kind;
  unsigned bits = 64;
  std::string ring;  // "0", "3", "both"
  bool relocatable = false, packed = false;
  Totals totals;
  u64 jump_tables = 0, unresolved_jumps = 0;
  ClassCounts counts, patched;  // patched: those of `counts` that stand in a patch site
  std::map<std::string, u64> patch_entries;
  std::vector<ReportSection> sections;
  std::vector<ReportFunction> functions;  // those with items
  std::vector<ReportFunction> quiet;      // the others, for the map
  std::vector<Item> items;                // by address
  std::vector<std::string> warnings;
};

struct ReportOptions {
  std::optional<isa::Ring> ring;  // unset: 0 for kernels, modules and raw code, 3 for the rest
  bool critical = true, privileged = true, innocuous = false;
};

inline constexpr u64 kCells = 2048;

Report make_report(const Image& image, const Scan& scan, const ReportOptions& options);

// "ffffffff81000000", or ".text+0x1c" where addresses mean nothing.
std::string place(const Report& report, const Item& item);
std::string hex(std::span<const u8> bytes);  // "0f 01 d0"

// The outputs. `version` is Trapline's.
void write_text(std::string& out, const Report& report, bool colour, bool summary);
std::string to_json(std::span<const Report> reports, const std::string& version);
std::string to_sarif(std::span<const Report> reports, const std::string& version);
std::string to_html(std::span<const Report> reports, const std::string& version);

}  // namespace trapline::scan
