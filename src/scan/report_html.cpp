// The page: html/page.html with style, script and the findings put in. The findings are arrays, in the order that
// html/script.js names; nothing else is loaded, so the file can be mailed.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "scan/page.h"
#include "scan/report.h"

namespace trapline::scan {

namespace {

using Json = nlohmann::ordered_json;

int class_index(isa::Class c) { return c == isa::Class::critical ? 0 : c == isa::Class::privileged ? 1 : 2; }

int confidence_index(const std::string& name) {
  constexpr const char* kNames[] = {"certain", "likely", "speculative", "hidden", "executed"};
  for (int i = 0; i < 5; i++)
    if (name == kNames[i]) return i;
  return 2;
}

Json function(const Report& r, const ReportFunction& f) {
  const u64 base = r.sections[static_cast<std::size_t>(f.section)].address;
  return Json::array({f.name, f.section, f.address - base, f.size});
}

// Texts that occur often are stored once.
class Strings {
 public:
  int index(const std::string& text) {
    const auto [at, added] = known_.emplace(text, static_cast<int>(list.size()));
    if (added) list.push_back(text);
    return at->second;
  }
  Json list = Json::array();

 private:
  std::map<std::string, int> known_;
};

Json rows(isa::Ring ring) {
  Json out = Json::array();
  for (const isa::Row& row : isa::table())
    out.push_back({{"id", isa::slug(row.id)},
                   {"name", row.name},
                   {"what", row.what},
                   {"why", isa::why(row, ring)},
                   {"sensitivity", isa::name(row.sensitivity)},
                   {"manual", row.manual}});
  return out;
}

Json image(const Report& r) {
  const Totals& t = r.totals;
  Json j{{"name", r.name},
         {"format", r.format},
         {"bits", r.bits},
         {"ring", r.ring},
         {"relocatable", r.relocatable},
         {"counts", {{"critical", r.counts.critical}, {"privileged", r.counts.privileged}}},
         {"patched", {{"critical", r.patched.critical}, {"privileged", r.patched.privileged}}},
         {"bytes",
          {{"certain", t.certain},
           {"likely", t.likely},
           {"speculative", t.speculative},
           {"padding", t.padding},
           {"data", t.data}}},
         {"decoded", t.instructions},
         {"tables", r.patch_entries},
         {"warnings", r.warnings},
         {"active", r.functions.size()}};
  j["rows"] = rows(r.ring == "3" ? isa::Ring::ring3 : isa::Ring::ring0);
  j["sections"] = Json::array();
  for (const ReportSection& s : r.sections)
    j["sections"].push_back(
        {{"name", s.name}, {"address", fmt::format("{:#x}", s.address)}, {"size", s.size}, {"cells", s.cells}});
  j["functions"] = Json::array();
  for (const auto* list : {&r.functions, &r.quiet})
    for (const ReportFunction& f : *list) j["functions"].push_back(function(r, f));
  Strings patches;
  j["findings"] = Json::array();
  for (const Item& i : r.items)
    j["findings"].push_back(Json::array({i.section, i.offset, i.function, static_cast<u16>(i.row->id),
                                         class_index(i.cls), confidence_index(i.confidence), hex(i.bytes), i.text,
                                         i.patch ? patches.index(i.patch_text) : -1, i.overlaps ? 1 : 0}));
  j["patches"] = std::move(patches.list);
  return j;
}

// Inside a script element "</script" and "<!--" would end or change it.
std::string for_script(const Json& j) {
  std::string out;
  for (const char c : j.dump(-1, ' ', false, Json::error_handler_t::replace))
    c == '<' ? void(out += "\\u003c") : out.push_back(c);
  return out;
}

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '<' || c == '&' || c == '>')
      out += c == '<' ? "&lt;" : c == '>' ? "&gt;" : "&amp;";
    else
      out.push_back(c < ' ' || c > '~' ? '?' : c);
  }
  return out;
}

}  // namespace

std::string to_html(std::span<const Report> reports, const std::string& version) {
  Json data{{"version", version}};
  data["images"] = Json::array();
  for (const Report& r : reports) data["images"].push_back(image(r));
  const std::pair<std::string_view, std::string> parts[] = {
      {"{{title}}", reports.empty() ? "nothing" : escaped(reports.front().name)},
      {"{{style}}", kPageStyle},
      {"{{data}}", for_script(data)},
      {"{{script}}", kPageScript}};
  // The template is cut once, from the front: what a file's names contain is never taken for a part's name.
  std::string out;
  std::string_view rest = kPageHtml;
  for (const auto& [mark, text] : parts) {
    const auto at = rest.find(mark);
    if (at == std::string_view::npos) continue;
    out += rest.substr(0, at);
    out += text;
    rest = rest.substr(at + mark.size());
  }
  return out + std::string{rest};
}

}  // namespace trapline::scan
