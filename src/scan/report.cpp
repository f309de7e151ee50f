#include "scan/report.h"

#include <fmt/format.h>

#include <algorithm>

namespace trapline::scan {

namespace {

const char* name_of(ImageKind kind) {
  constexpr const char* kNames[] = {"executable", "shared object", "relocatable", "kernel", "raw"};
  return kNames[static_cast<u8>(kind)];
}

struct Assumed {
  isa::Ring ring;
  const char* why;
};

Assumed ring_of(const Image& image) {
  if (image.kind == ImageKind::kernel) return {isa::Ring::ring0, "a kernel"};
  if (image.kind == ImageKind::raw) return {isa::Ring::ring0, "raw code"};
  if (image.section_named(".modinfo") || image.section_named(".gnu.linkonce.this_module"))
    return {isa::Ring::ring0, "a kernel module"};
  return {isa::Ring::ring3, "an ordinary program or library"};
}

How how_of(Confidence c) {
  return c == Confidence::certain ? How::certain : c == Confidence::likely ? How::likely : How::speculative;
}

std::string disassembled(u64 address, std::span<const u8> bytes, isa::CodeSize size, isa::Vendor vendor) {
  isa::Insn insn;
  char text[256];
  if (isa::decode(bytes.data(), bytes.size(), size, vendor, insn) != isa::DecodeStatus::ok) return {};
  return {text, isa::format(insn, address, text, sizeof text)};
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
      : image_{image}, scan_{scan}, options_{options}, ring_{options.ring.value_or(ring_of(image).ring)} {}

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
    report_.items.reserve(scan_.findings.size() + scan_.hidden.size());
    auto hidden = scan_.hidden.begin();  // both are by address: merged, not sorted
    for (const Finding& f : scan_.findings) {
      for (; hidden != scan_.hidden.end() && hidden->address < f.address; ++hidden) add(*hidden, How::hidden);
      add(f, how_of(f.confidence));
    }
    for (; hidden != scan_.hidden.end(); ++hidden) add(*hidden, How::hidden);
    for (const VendorDifference& d : scan_.differences) add(d);
    warn();
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
    if (!options_.ring) report_.ring_why = ring_of(image_).why;
    report_.vendors = scan_.vendors;
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

  void add(const Finding& f, How how) {
    Item item;
    item.row = &isa::row(f.row);
    item.ring = ring_;
    item.cls = isa::class_of(item.row, ring_);
    if (!wanted(item.cls)) {
      if (how != How::hidden) report_.filtered.of(item.cls)++;
      return;
    }
    item.address = f.address;
    item.code_size = image_.code_size;
    item.how = how;
    item.section = section(f.address);
    item.length = f.length;
    item.bytes = f.bytes;
    item.overlaps = f.overlaps;
    if (const PatchSite* site = scan_.patches.at(f.address)) item.patch = patch(*site);
    // Replacements are in no function: the symbol before them marks the end of something else.
    const bool replacement = report_.sections[static_cast<std::size_t>(item.section)].name == ".altinstr_replacement";
    item.function = replacement ? -1 : function_at(f.address);
    if (item.function >= 0)
      item.function_offset =
          static_cast<u32>(item.address - report_.functions[static_cast<std::size_t>(item.function)].address);
    count(item);
    report_.items.push_back(item);
  }

  void add(const VendorDifference& d) {
    ReportDifference out;
    out.address = d.address;
    out.section = section(d.address);
    out.function = function_at(d.address);
    if (out.function >= 0)
      out.function_offset =
          static_cast<u32>(d.address - report_.functions[static_cast<std::size_t>(out.function)].address);
    out.what = d.what;
    out.intel_length = d.intel_length;
    out.amd_length = d.amd_length;
    out.length = std::max(d.intel_length, d.amd_length);
    out.bytes = d.bytes;
    out.intel = disassembled(d.address, std::span{d.bytes}.first(d.intel_length), image_.code_size, isa::Vendor::intel);
    out.amd = disassembled(d.address, std::span{d.bytes}.first(d.amd_length), image_.code_size, isa::Vendor::amd);
    report_.differences.push_back(std::move(out));
  }

  // A site is named by its description: there are few of those.
  i32 patch(const PatchSite& site) {
    PatchNote note{scan::name_of(site.kind), scan::describe(site)};
    const auto [at, added] =
        patches_.emplace(std::pair{note.kind, note.text}, static_cast<i32>(report_.patches.size()));
    if (added) report_.patches.push_back(std::move(note));
    return at->second;
  }

  void count(const Item& item) {
    if (item.how == How::hidden) return;  // not instructions that the program itself executes
    report_.counts.of(item.cls)++;
    if (item.patch >= 0) report_.patched.of(item.cls)++;
    report_.sections[static_cast<std::size_t>(item.section)].counts.of(item.cls)++;
    if (item.function >= 0) report_.functions[static_cast<std::size_t>(item.function)].counts.of(item.cls)++;
  }

  void warn() {
    if (scan_.left_out)
      report_.warnings.push_back(fmt::format(
          "{} findings beyond the limit are left out, of the counts too: raise --max-findings", scan_.left_out));
    if (const std::string wrong = implausible(); !wrong.empty()) report_.warnings.push_back(wrong);
  }

  // Code of another mode, or what is no code: much that does not decode, or privileged instructions by the hundred in
  // what is taken for a program's.
  std::string implausible() const {
    const Totals& t = scan_.totals;
    const u64 all = t.code() + t.padding + t.data;
    if (all < 4096) return {};
    const unsigned bits = static_cast<unsigned>(image_.code_size) * 8;
    if (t.data > all / 5)
      return fmt::format(
          "{}% of what is marked as code decodes to nothing as {}-bit code: it may be code of another mode, packed or "
          "data",
          t.data * 100 / all, bits);
    const u64 privileged = report_.counts.privileged + report_.filtered.privileged;
    if (ring_ == isa::Ring::ring3 && privileged >= 50 && privileged * 2000 > t.instructions)
      return fmt::format(
          "{} privileged instructions: this looks like code of ring 0 (a kernel or hypervisor), or of another mode "
          "than "
          "{}-bit: see --ring",
          privileged, bits);
    return {};
  }

  const Image& image_;
  const Scan& scan_;
  const ReportOptions& options_;
  isa::Ring ring_;
  Report report_;
  std::vector<int> owner_;  // by symbol: its function in the report
  std::map<std::pair<const char*, std::string>, i32> patches_;
};

}  // namespace

Report make_report(const Image& image, const Scan& scan, const ReportOptions& options) {
  return Maker{image, scan, options}.make();
}

const char* name_of(How how) {
  constexpr const char* kNames[] = {"certain", "likely", "speculative", "hidden", "executed"};
  return kNames[static_cast<u8>(how)];
}

u64 offset_of(const Report& report, const Item& item) {
  return item.section < 0 ? 0 : item.address - report.sections[static_cast<std::size_t>(item.section)].address;
}

std::string place(const Report& report, u64 address, int section) {
  if (report.relocatable && section >= 0) {
    const ReportSection& s = report.sections[static_cast<std::size_t>(section)];
    return fmt::format("{}+{:#x}", s.name, address - s.address);
  }
  return fmt::format("{:0{}x}", address, report.bits == 64 ? 16 : 8);
}

std::string text_of(const Report& report, const Item& item) {
  if (item.text >= 0) return report.texts[static_cast<std::size_t>(item.text)];
  return disassembled(item.address, item.code(), item.code_size,
                      report.vendors == Vendors::amd ? isa::Vendor::amd : isa::Vendor::intel);
}

std::string hex(std::span<const u8> bytes) {
  std::string out;
  for (u8 b : bytes) out += fmt::format("{}{:02x}", out.empty() ? "" : " ", b);
  return out;
}

}  // namespace trapline::scan
