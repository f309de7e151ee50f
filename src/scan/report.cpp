#include "scan/report.h"

#include <fmt/format.h>

#include <algorithm>

namespace trapline::scan {

namespace {

const char* name_of(ImageKind kind) {
  constexpr const char* kNames[] = {"executable", "shared object", "relocatable", "kernel", "raw"};
  return kNames[static_cast<u8>(kind)];
}

isa::Ring ring_of(const Image& image) {
  const bool ring0 = image.kind == ImageKind::kernel || image.kind == ImageKind::raw ||
                     image.section_named(".modinfo") || image.section_named(".gnu.linkonce.this_module");
  return ring0 ? isa::Ring::ring0 : isa::Ring::ring3;
}

char cell(u8 mark, u8 confidence) {
  if (mark & (CodeMap::start | CodeMap::inside)) return confidence == 3 ? 'c' : confidence == 2 ? 'l' : 's';
  return mark & CodeMap::padding ? 'p' : 'd';
}

// The most frequent kind in each of equal parts.
std::string cells_of(const CodeMap::Area& area) {
  const u64 size = area.marks.size(), cells = std::min(kCells, size);
  std::string out;
  u8 confidence = 0;
  u64 at = 0;
  for (u64 i = 0; i < cells; i++) {
    u32 counts[128] = {};
    char best = 'd';
    for (const u64 end = static_cast<u64>(u128{size} * (i + 1) / cells); at < end; at++) {
      const u8 mark = area.marks[at];
      if (mark & CodeMap::start) confidence = mark & CodeMap::confidence_mask;
      const char c = cell(mark, confidence);
      if (++counts[static_cast<u8>(c)] > counts[static_cast<u8>(best)]) best = c;
    }
    out.push_back(best);
  }
  return out;
}

class Maker {
 public:
  Maker(const Image& image, const Scan& scan, const ReportOptions& options)
      : image_{image}, scan_{scan}, options_{options}, ring_{options.ring.value_or(ring_of(image))} {}

  Report make() {
    describe();
    for (const CodeMap::Area& area : scan_.map.areas())
      report_.sections.push_back({area.section->name,
                                  area.section->address,
                                  area.marks.size(),
                                  area.section->file_offset,
                                  {},
                                  cells_of(area)});
    owner_.assign(image_.symbols.size(), -1);
    for (const Finding& f : scan_.findings) add(f, scan::name_of(f.confidence));
    for (const Finding& f : scan_.hidden) add(f, "hidden");
    std::stable_sort(report_.items.begin(), report_.items.end(),
                     [](const Item& a, const Item& b) { return a.address < b.address; });
    for (std::size_t i = 0; i < image_.symbols.size(); i++)
      if (owner_[i] < 0) report_.quiet.push_back(function(image_.symbols[i]));
    return std::move(report_);
  }

 private:
  void describe() {
    report_.name = image_.name;
    report_.format = image_.format;
    report_.kind = name_of(image_.kind);
    report_.bits = static_cast<unsigned>(image_.code_size) * 8;
    report_.ring.push_back(ring_ == isa::Ring::ring0 ? '0' : '3');
    report_.relocatable = image_.relocatable();
    report_.packed = image_.packed;
    report_.totals = scan_.totals;
    report_.jump_tables = scan_.jump_tables;
    report_.unresolved_jumps = scan_.unresolved_jumps;
    report_.patch_entries = scan_.patches.entries;
    report_.warnings = image_.warnings;
  }

  int section(u64 address) const {
    const auto areas = scan_.map.areas();
    const auto after = std::upper_bound(areas.begin(), areas.end(), address,
                                        [](u64 a, const CodeMap::Area& s) { return a < s.section->address; });
    return static_cast<int>(after - areas.begin()) - 1;
  }

  ReportFunction function(const Symbol& s) const {
    return {s.name.empty() ? fmt::format("sub_{:x}", s.address) : s.name, s.address, s.size, section(s.address), {}};
  }

  // The symbol that holds it; one of unknown size reaches to the next.
  int function_at(u64 address) {
    const auto after = std::upper_bound(image_.symbols.begin(), image_.symbols.end(), address,
                                        [](u64 a, const Symbol& s) { return a < s.address; });
    if (after == image_.symbols.begin()) return -1;
    const auto at = static_cast<std::size_t>(after - image_.symbols.begin()) - 1;
    const Symbol& s = image_.symbols[at];
    if ((s.size && address - s.address >= s.size) || section(s.address) != section(address)) return -1;
    if (owner_[at] < 0) {
      owner_[at] = static_cast<int>(report_.functions.size());
      report_.functions.push_back(function(s));
    }
    return owner_[at];
  }

  bool wanted(isa::Class c) const {
    return c == isa::Class::critical     ? options_.critical
           : c == isa::Class::privileged ? options_.privileged
                                         : options_.innocuous;
  }

  void add(const Finding& f, const char* confidence) {
    Item item;
    item.row = &isa::row(f.row);
    item.ring = ring_;
    item.cls = isa::class_of(item.row, ring_);
    if (!wanted(item.cls)) return;
    item.address = f.address;
    item.code_size = image_.code_size;
    item.confidence = confidence;
    item.section = section(f.address);
    item.offset = f.address - report_.sections[static_cast<std::size_t>(item.section)].address;
    item.bytes.assign(f.bytes.begin(), f.bytes.begin() + f.length);
    item.overlaps = f.overlaps;
    disassemble(item);
    if (const PatchSite* site = scan_.patches.at(f.address)) {
      item.patch = scan::name_of(site->kind);
      item.patch_text = scan::describe(*site);
    }
    // Replacements are in no function: the symbol before them marks the end of something else.
    const bool replacement = report_.sections[static_cast<std::size_t>(item.section)].name == ".altinstr_replacement";
    item.function = replacement ? -1 : function_at(f.address);
    count(item);
    report_.items.push_back(std::move(item));
  }

  void count(Item& item) {
    if (item.confidence == "hidden") return;  // not instructions that the program itself executes
    report_.counts.of(item.cls)++;
    if (item.patch) report_.patched.of(item.cls)++;
    report_.sections[static_cast<std::size_t>(item.section)].counts.of(item.cls)++;
    if (item.function < 0) return;
    ReportFunction& owner = report_.functions[static_cast<std::size_t>(item.function)];
    item.function_offset = item.address - owner.address;
    owner.counts.of(item.cls)++;
  }

  void disassemble(Item& item) const {
    isa::Insn insn;
    char text[256];
    if (isa::decode(item.bytes.data(), item.bytes.size(), image_.code_size, isa::host_vendor(), insn) ==
        isa::DecodeStatus::ok)
      item.text.assign(text, isa::format(insn, item.address, text, sizeof text));
  }

  const Image& image_;
  const Scan& scan_;
  const ReportOptions& options_;
  isa::Ring ring_;
  Report report_;
  std::vector<int> owner_;  // by symbol: its function in the report
};

}  // namespace

Report make_report(const Image& image, const Scan& scan, const ReportOptions& options) {
  return Maker{image, scan, options}.make();
}

std::string place(const Report& report, const Item& item) {
  if (report.relocatable && item.section >= 0)
    return fmt::format("{}+{:#x}", report.sections[static_cast<std::size_t>(item.section)].name, item.offset);
  return fmt::format("{:0{}x}", item.address, report.bits == 64 ? 16 : 8);
}

std::string hex(std::span<const u8> bytes) {
  std::string out;
  for (u8 b : bytes) out += fmt::format("{}{:02x}", out.empty() ? "" : " ", b);
  return out;
}

}  // namespace trapline::scan
