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

Json function(const Report& r, const ReportFunction& f) {
  const u64 base = r.sections[static_cast<std::size_t>(f.section)].address;
  return Json::array({f.name, f.section, f.address - base, f.size});
}

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
  j["patches"] = Json::array();
  for (const PatchNote& p : r.patches) j["patches"].push_back(p.text);
  j["differences"] = r.differences.size();
  return j;
}

Json finding(const Report& r, const Item& i) {
  return Json::array({i.section, offset_of(r, i), i.function, static_cast<u16>(i.row->id), class_index(i.cls),
                      static_cast<int>(i.how), hex(i.code()), text_of(r, i), i.patch, i.overlaps ? 1 : 0});
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

void put_images(const Sink& out, std::span<const Report> reports, const std::string& version) {
  std::string head = for_script(Json{{"version", version}});
  head.pop_back();
  out(head + ",\"images\":[");
  const char* between_images = "";
  for (const Report& r : reports) {
    std::string object = for_script(image(r));
    object.pop_back();
    out(between_images);
    out(object + ",\"findings\":[");
    const char* between = "";
    for (const Item& i : r.items) {
      out(between);
      out(for_script(finding(r, i)));
      between = ",";
    }
    out("]}");
    between_images = ",";
  }
  out("]}");
}

}  // namespace

// The template is cut once, from the front: what a file's names contain is never taken for a part's name.
void write_html(const Sink& out, std::span<const Report> reports, const std::string& version) {
  std::string_view rest = kPageHtml;
  const auto up_to = [&](std::string_view mark) {
    const auto at = rest.find(mark);
    out(rest.substr(0, at));
    rest = at == std::string_view::npos ? std::string_view{} : rest.substr(at + mark.size());
  };
  up_to("{{title}}");
  out(reports.empty() ? "nothing" : escaped(reports.front().name));
  up_to("{{style}}");
  out(kPageStyle);
  up_to("{{data}}");
  put_images(out, reports, version);
  up_to("{{script}}");
  out(kPageScript);
  out(rest);
}

}  // namespace trapline::scan
