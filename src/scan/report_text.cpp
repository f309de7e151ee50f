#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "scan/report.h"

namespace trapline::scan {

namespace {

struct Paint {
  bool on;
  const char* critical() const { return on ? "\033[31;1m" : ""; }
  const char* privileged() const { return on ? "\033[33m" : ""; }
  const char* bold() const { return on ? "\033[1m" : ""; }
  const char* dim() const { return on ? "\033[2m" : ""; }
  const char* off() const { return on ? "\033[0m" : ""; }
  const char* of(isa::Class c) const {
    return c == isa::Class::critical ? critical() : c == isa::Class::privileged ? privileged() : dim();
  }
};

// Names come from the file: what is not printable must not reach a terminal.
std::string clean(std::string_view text) {
  std::string out{text};
  for (char& c : out)
    if (c < ' ' || c > '~') c = '?';
  return out;
}

std::string percent(u64 part, u64 whole) {
  return fmt::format("{:.1f}%", whole ? 100.0 * double(part) / double(whole) : 0);
}

class Writer {
 public:
  Writer(const Sink& out, const Report& report, bool colour) : out_{out}, r_{report}, paint_{colour} {}

  void head() {
    const u64 all = r_.totals.code() + r_.totals.padding + r_.totals.data;
    line("{}{}{}: {}", paint_.bold(), clean(r_.name), paint_.off(), clean(r_.format));
    if (r_.kind != "executed") assumptions();
    if (all)
      line("  {} bytes in code sections: {} instructions; certain {}, likely {}, speculative {}, padding {}, data {}",
           all, r_.totals.instructions, percent(r_.totals.certain, all), percent(r_.totals.likely, all),
           percent(r_.totals.speculative, all), percent(r_.totals.padding, all), percent(r_.totals.data, all));
    line("  {}critical {}{}   {}privileged {}{}   in patch sites: {} critical, {} privileged", paint_.critical(),
         r_.counts.critical, paint_.off(), paint_.privileged(), r_.counts.privileged, paint_.off(), r_.patched.critical,
         r_.patched.privileged);
    std::string tables;
    for (const auto& [name, n] : r_.patch_entries)
      tables += fmt::format("{}{} {}", tables.empty() ? "" : ", ", name, n);
    if (!tables.empty()) line("  tables: {}", tables);
    if (r_.filtered.total())
      line("  not listed, of other classes: critical {}, privileged {}, innocuous {} (--class all)",
           r_.filtered.critical, r_.filtered.privileged, r_.filtered.innocuous);
    if (!r_.differences.empty())
      line("  {}{} instruction{} differ{} between Intel's and AMD's CPUs{}", paint_.bold(), r_.differences.size(),
           r_.differences.size() == 1 ? "" : "s", r_.differences.size() == 1 ? "s" : "", paint_.off());
    for (const std::string& w : r_.warnings) line("  {}warning:{} {}", paint_.bold(), paint_.off(), clean(w));
  }

  void sections() {
    line("\n  {:<28} {:>12} {:>9} {:>11}", "section", "bytes", "critical", "privileged");
    for (const ReportSection& s : r_.sections)
      line("  {:<28} {:>12} {:>9} {:>11}", clean(s.name), s.size, s.counts.critical, s.counts.privileged);
  }

  void instructions() {
    std::map<const isa::Row*, std::pair<isa::Class, u64>> by_row;
    for (const Item& i : r_.items) {
      auto& [cls, n] = by_row[i.row];
      cls = std::max(cls, i.cls);
      n++;
    }
    std::vector<std::tuple<isa::Class, u64, const isa::Row*>> order;
    order.reserve(by_row.size());
    for (const auto& [row, of] : by_row) order.emplace_back(of.first, of.second, row);
    std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
      if (std::get<0>(a) != std::get<0>(b)) return std::get<0>(a) > std::get<0>(b);
      return std::get<1>(a) != std::get<1>(b) ? std::get<1>(a) > std::get<1>(b)
                                              : std::get<2>(a)->id < std::get<2>(b)->id;
    });
    line("\n  {:<20} {:>9}  {:<11} why", "instruction", "count", "class");
    const isa::Ring ring = r_.ring == "3" ? isa::Ring::ring3 : isa::Ring::ring0;
    for (const auto& [cls, n, row] : order)
      line("  {:<20} {:>9}  {}{:<11}{} {}", row->name, n, paint_.of(cls), isa::name(cls), paint_.off(),
           isa::why(*row, ring));
  }

  void items() {
    int section = -2, function = -2;
    for (const Item& i : r_.items) {
      if (i.section != section || i.function != function) heading(i);
      section = i.section;
      function = i.function;
      line("    {}  {:<24} {:<32} {}{:<10}{} {}{}{}{}", place(r_, i), hex(i.code()), text_of(r_, i), paint_.of(i.cls),
           isa::name(i.cls), paint_.off(), name_of(i.how), i.cpl >= 0 ? fmt::format("  CPL {}", i.cpl) : "",
           i.overlaps && i.how != How::hidden ? "  overlaps" : "",
           i.patch >= 0 ? fmt::format("  [{}]", r_.patches[static_cast<std::size_t>(i.patch)].text) : "");
    }
  }

  void differences() {
    line("\n  {}differs by vendor{}", paint_.bold(), paint_.off());
    for (const ReportDifference& d : r_.differences) {
      const std::string in =
          d.function < 0 ? ""
                         : fmt::format("  {}+{:#x}", clean(r_.functions[static_cast<std::size_t>(d.function)].name),
                                       d.function_offset);
      line("    {}  {:<24} Intel: {} ({})   AMD: {}{}", place(r_, d.address, d.section), hex(d.code()), d.intel,
           d.intel_length, d.amd_length ? fmt::format("{} ({})", d.amd, d.amd_length) : "#UD", in);
      line("      {}{}{}", paint_.dim(), d.what, paint_.off());
    }
  }

 private:
  void assumptions() {
    const char* decoded = r_.vendors == Vendors::both  ? "for Intel and AMD CPUs"
                          : r_.vendors == Vendors::amd ? "for AMD CPUs"
                                                       : "for Intel CPUs";
    line("  read as {}-bit code of ring {}{}, {}", r_.bits, r_.ring,
         r_.ring_why.empty() ? "" : fmt::format(" (as {}: --ring overrides)", r_.ring_why), decoded);
  }

  void heading(const Item& i) {
    const std::string in = i.section >= 0 ? clean(r_.sections[static_cast<std::size_t>(i.section)].name) : "";
    if (i.function < 0)
      return line("\n  {}{}{}", paint_.bold(), in.empty() ? "(no symbol)" : in + ", no symbol", paint_.off());
    const ReportFunction& f = r_.functions[static_cast<std::size_t>(i.function)];
    line("\n  {}{}{} {}  critical {}, privileged {}", paint_.bold(), clean(f.name), paint_.off(), in, f.counts.critical,
         f.counts.privileged);
  }

  template <class... T>
  void line(fmt::format_string<T...> format, T&&... values) {
    buffer_.clear();
    fmt::format_to(std::back_inserter(buffer_), format, std::forward<T>(values)...);
    buffer_.push_back('\n');
    out_(buffer_);
  }

  const Sink& out_;
  std::string buffer_;
  const Report& r_;
  Paint paint_;
};

}  // namespace

void write_text(const Sink& out, const Report& report, bool colour, bool summary) {
  Writer w{out, report, colour};
  w.head();
  if (!report.sections.empty()) w.sections();
  if (!report.items.empty()) w.instructions();
  if (!summary && !report.differences.empty()) w.differences();
  if (!summary) w.items();
  out("\n");
}

}  // namespace trapline::scan
