// One page, nothing loaded from elsewhere. Readable without its script, which only filters and unfolds.
#include <fmt/format.h>

#include <cctype>

#include "base/html.h"
#include "isa/report/report.h"
#include "isa/verify/host_features.h"

namespace trapline::isa::report {

namespace {

constexpr std::string_view kStyle =
#include "isa/report/page_style.inc"
    ;
constexpr std::string_view kScript =
#include "isa/report/page_script.inc"
    ;

std::string badge(Class c, bool differs) {
  return fmt::format(
      "<span class=\"badge {0}\">{0}</span>{1}", name(c),
      differs ? " <span class=soft title=\"critical by the architecture; traps on this host\">*</span>" : "");
}

std::string badge_in(const Row& row, Ring ring, HostFeatures host) {
  const Class here = class_on(row, ring, host);
  return badge(here, here != in_ring(row, ring).cls);
}

std::string item(std::string_view term, const std::string& html) {
  return html.empty() ? "" : fmt::format("<dt>{}</dt><dd>{}</dd>", term, html);
}

std::string lowering(Lowering ring0, Lowering ring3) {
  if (ring0 == ring3) return fmt::format("<b>{}</b>: {}", name(ring0), html_escaped(meaning(ring0)));
  return fmt::format("ring 0 <b>{}</b>: {}<br>ring 3 <b>{}</b>: {}", name(ring0), html_escaped(meaning(ring0)),
                     name(ring3), html_escaped(meaning(ring3)));
}

std::string observations(const Row& row, const std::vector<verify::Finding>& findings) {
  std::string out;
  for (const verify::Finding& f : findings) {
    if (f.row != &row) continue;
    const bool differs = f.agreement == verify::Agreement::differs;
    const char* word = differs                                    ? "<span class=bad>mismatch</span>"
                       : f.agreement == verify::Agreement::agrees ? "<span class=good-word>ok</span>"
                                                                  : "<span class=soft>not run</span>";
    out += fmt::format("<div>{} {}{} <code>{}</code>: <code>{}</code></div>", word, verify::name(f.size),
                       f.variant.empty() ? "" : fmt::format(" ({})", f.variant), html_escaped(f.ran),
                       html_escaped(f.happened));
  }
  return out;
}

std::string details(const Row& row, const Report& report) {
  std::string out = "<dl>" + item("what", html_escaped(row.what));
  out += item("sensitivity",
              fmt::format("{}{}", name(row.sensitivity), row.robin_irvine ? ", among Robin and Irvine's (2000)" : ""));
  out += item("ring 0", html_escaped(why(row, Ring::ring0)));
  if (why(row, Ring::ring3) != why(row, Ring::ring0)) out += item("ring 3", html_escaped(why(row, Ring::ring3)));
  out += item("effect",
              fmt::format("<code>{}</code>: {}", html_escaped(effects(row)), meaning(effect_on(row, report.host))));
  out += item("seen here", observations(row, report.findings));
  out += item("translate", lowering(row.ring0.translate, row.ring3.translate));
  out += item(kPatchBuilt ? "patch" : "patch (planned)", lowering(row.ring0.patch, row.ring3.patch));
  out += item(kCageBuilt ? "cage" : "cage (planned)",
              fmt::format("<b>{}</b>: {}", html_escaped(cage(row)), html_escaped(meaning(row.cage))));
  out += item("para", html_escaped(row.para)) + item("manual", html_escaped(row.manual));
  return out + "</dl>";
}

// What the search box looks in.
std::string search_text(const Row& row) {
  std::string out = fmt::format("{} {} {} {} {}", row.name, row.what, why(row, Ring::ring0), why(row, Ring::ring3),
                                name(row.sensitivity));
  for (char& c : out) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return html_escaped(out);
}

std::string row_html(const Row& row, const Report& report) {
  constexpr std::string_view sensitive[] = {"-", "control", "behaviour", "both"};
  std::string out = fmt::format(
      "<tr class=row id=\"{}\" tabindex=0 aria-expanded=false data-ring0={} data-ring3={} data-text=\"{}\"><td>{}</td>",
      slug(row.id), name(class_on(row, Ring::ring0, report.host)), name(class_on(row, Ring::ring3, report.host)),
      search_text(row), html_escaped(row.name));
  out += fmt::format("<td>{}</td><td>{}</td><td>{}</td><td>{}</td>", sensitive[static_cast<u8>(row.sensitivity)],
                     badge_in(row, Ring::ring0, report.host), badge_in(row, Ring::ring3, report.host),
                     name(effect_on(row, report.host)));
  out += fmt::format("<td>{}</td><td>{}</td><td>{}</td><td class=soft>{}</td></tr>\n", name(row.ring0.translate),
                     name(row.ring0.patch), name(row.cage), modes(row));
  return out + fmt::format("<tr class=more><td colspan=9>{}</td></tr>\n", details(row, report));
}

std::string tile(std::size_t number, std::string_view label) {
  return fmt::format("<div class=tile><b>{}</b><span>{}</span></div>", number, label);
}

std::string top(const Report& report) {
  const Verdict v = verdict(report.host);
  std::string out =
      fmt::format("<h1>Critical instructions of this host</h1><p class=host>{}</p>", html_escaped(report.host_name));
  out += fmt::format(
      "<div class=\"verdict{}\"><strong>{}</strong><p>{}</p></div>", v.virtualizable() ? " good" : "",
      v.virtualizable() ? "Virtualizable by trap-and-emulate" : "Not virtualizable by trap-and-emulate",
      v.virtualizable() ? "Every sensitive instruction traps in ring 3 (Popek and Goldberg, theorem 1)."
                        : fmt::format("{} of {} sensitive instructions and forms do not trap in ring 3: a deprivileged "
                                      "kernel would silently go wrong (Popek and Goldberg, theorem 1).",
                                      v.critical.size(), v.sensitive));
  out += "<div class=tiles>" + tile(v.critical.size(), "critical in ring 0") +
         tile(v.in_ring3.size(), "critical in ring 3");
  out += tile(v.sensitive - v.critical.size(), "sensitive, and trap") +
         tile(v.made_to_trap.size(), "made to trap by this host");
  if (!report.findings.empty()) out += tile(mismatches(report.findings), "mismatches when run");
  out += "</div><div class=chips>";
  for (Feature f : present(report.host))
    out += fmt::format("<span class=chip title=\"{}\">{}</span>", html_escaped(verify::about(f)), name(f));
  return out + "</div>\n";
}

constexpr std::string_view kBar =
    "<div class=bar><input id=query type=search placeholder=\"Filter: popf, descriptor, host's GDT ...\" "
    "aria-label=Filter><select id=ring aria-label=Ring><option value=\"\">ring 0 and 3</option><option value=0>ring 0"
    "</option><option value=3>ring 3</option></select><select id=class aria-label=Class><option value=\"\">every class"
    "</option><option>critical</option><option>privileged</option><option>innocuous</option></select>"
    "<button id=theme type=button>Light / dark</button><output id=count></output></div>\n";

}  // namespace

std::string html(const Report& report) {
  std::string out = fmt::format(
      "<!doctype html>\n<html lang=en><head><meta charset=utf-8><meta name=viewport "
      "content=\"width=device-width,initial-scale=1\">\n<title>Critical instructions</title>\n<style>{}</style></head>"
      "<body><main>\n",
      kStyle);
  out += top(report);
  out += kBar;
  out +=
      "<div class=table><table><thead><tr><th>instruction<th>sensitive<th>ring 0<th>ring 3<th>in ring 3 of this host"
      "<th>translate";
  out += fmt::format("<th>patch{}<th>cage{}<th>modes</tr></thead><tbody>\n", kPatchBuilt ? "" : " (planned)",
                     kCageBuilt ? "" : " (planned)");
  for (const Row* row : report.rows) out += row_html(*row, report);
  out += fmt::format(
      "</tbody></table></div><footer>* critical by the architecture; it traps on this host. Classes are "
      "those of Popek and Goldberg (1974).</footer></main>\n<script>{}</script></body></html>\n",
      kScript);
  return out;
}

}  // namespace trapline::isa::report
