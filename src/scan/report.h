// A scan's result in the shape that all outputs share: text, JSON, SARIF and HTML are views of it. Also made for the
// code that a guest has executed (--scan-report). The JSON schema is in docs/scan.md.
#pragma once

#include <array>
#include <functional>
#include <map>
#include <span>
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

enum class How : u8 { certain, likely, speculative, hidden, executed };  // hidden: --every-offset
const char* name_of(How how);

// One sensitive instruction. Small: --every-offset finds a million. What can be computed is: text_of() and its like.
struct Item {
  u64 address = 0;
  const isa::Row* row = nullptr;
  i32 section = -1;   // in Report::sections
  i32 function = -1;  // in Report::functions
  i32 patch = -1;     // in Report::patches: the patch site that it is in
  i32 text = -1;      // in Report::texts; else it is disassembled
  u32 function_offset = 0;
  isa::Class cls = isa::Class::innocuous;
  isa::Ring ring = isa::Ring::ring0;
  isa::CodeSize code_size = isa::CodeSize::bits64;
  How how = How::certain;
  bool overlaps = false;
  i8 cpl = -1;  // executed code only
  u8 length = 0;
  std::array<u8, 15> bytes{};
  std::span<const u8> code() const { return std::span{bytes}.first(length); }
};

struct PatchNote {
  const char* kind;
  std::string text;
};

// One instruction that Intel's and AMD's CPUs take differently.
struct ReportDifference {
  u64 address = 0;
  i32 section = -1, function = -1;
  u32 function_offset = 0;
  const char* what = nullptr;
  std::string intel, amd;  // disassembled; amd is empty: none
  u8 intel_length = 0, amd_length = 0, length = 0;
  std::array<u8, 15> bytes{};
  std::span<const u8> code() const { return std::span{bytes}.first(length); }
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
  std::string ring;      // "0", "3", "both"
  std::string ring_why;  // "a kernel"; empty: it was asked for
  Vendors vendors = Vendors::both;
  bool relocatable = false, packed = false;
  Totals totals;
  u64 jump_tables = 0, unresolved_jumps = 0;
  ClassCounts counts, patched;  // patched: those of `counts` that stand in a patch site
  ClassCounts filtered;         // found, of a class that was not asked for
  std::map<std::string, u64> patch_entries;
  std::vector<ReportSection> sections;
  std::vector<ReportFunction> functions;  // those with items
  std::vector<ReportFunction> quiet;      // the others, for the map
  std::vector<Item> items;                // by address
  std::vector<PatchNote> patches;
  std::vector<std::string> texts;
  std::vector<ReportDifference> differences;  // by address
  std::vector<std::string> warnings;
};

struct ReportOptions {
  std::optional<isa::Ring> ring;  // unset: 0 for kernels, modules and raw code, 3 for the rest
  bool critical = true, privileged = true, innocuous = false;
};

inline constexpr u64 kCells = 2048;

Report make_report(const Image& image, const Scan& scan, const ReportOptions& options);

// "ffffffff81000000", or ".text+0x1c" where addresses mean nothing.
std::string place(const Report& report, u64 address, int section);
inline std::string place(const Report& report, const Item& item) { return place(report, item.address, item.section); }
std::string text_of(const Report& report, const Item& item);  // "sidt [rax]"
u64 offset_of(const Report& report, const Item& item);        // in its section
std::string hex(std::span<const u8> bytes);                   // "0f 01 d0"

// The outputs, piece by piece, so that none is ever whole in memory. `version` is Trapline's.
using Sink = std::function<void(std::string_view)>;
void write_text(const Sink& out, const Report& report, bool colour, bool summary);
void write_json(const Sink& out, std::span<const Report> reports, const std::string& version);
void write_sarif(const Sink& out, std::span<const Report> reports, const std::string& version);
void write_html(const Sink& out, std::span<const Report> reports, const std::string& version);

}  // namespace trapline::scan
