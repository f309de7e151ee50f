// The JSON schema "trapline-scan/1" (docs/scan.md).
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "scan/report.h"

namespace trapline::scan {

namespace {

using Json = nlohmann::ordered_json;

Json counts(const ClassCounts& c) {
  return {{"critical", c.critical}, {"privileged", c.privileged}, {"innocuous", c.innocuous}};
}

std::string address(u64 a) { return fmt::format("{:#x}", a); }

Json instructions(const Report& r) {
  std::map<const isa::Row*, ClassCounts> by_row;
  for (const Item& i : r.items) by_row[i.row].of(i.cls)++;
  std::map<isa::RowId, Json> sorted;
  for (const auto& [row, c] : by_row)
    sorted[row->id] = {{"id", isa::slug(row->id)},
                       {"name", row->name},
                       {"sensitivity", isa::name(row->sensitivity)},
                       {"why", isa::why(*row, r.ring == "3" ? isa::Ring::ring3 : isa::Ring::ring0)},
                       {"counts", counts(c)}};
  Json out = Json::array();
  for (auto& [id, j] : sorted) out.push_back(std::move(j));
  return out;
}

void add_place(Json& j, const Report& r, u64 at, int section, int function, u64 function_offset) {
  if (!r.relocatable) j["address"] = address(at);
  if (section >= 0) {
    const ReportSection& s = r.sections[static_cast<std::size_t>(section)];
    j["section"] = s.name;
    j["offset"] = at - s.address;
  }
  if (function >= 0) {
    j["function"] = r.functions[static_cast<std::size_t>(function)].name;
    j["function_offset"] = function_offset;
  }
}

Json finding(const Report& r, const Item& i) {
  Json j;
  add_place(j, r, i.address, i.section, i.function, i.function_offset);
  j["instruction"] = isa::slug(i.row->id);
  j["class"] = isa::name(i.cls);
  j["confidence"] = name_of(i.how);
  if (i.cpl >= 0) {
    j["cpl"] = i.cpl;
    j["bits"] = static_cast<unsigned>(i.code_size) * 8;
  }
  j["bytes"] = hex(i.code());
  j["text"] = text_of(r, i);
  if (i.patch >= 0) {
    const PatchNote& patch = r.patches[static_cast<std::size_t>(i.patch)];
    j["patch"] = {{"kind", patch.kind}, {"text", patch.text}};
  }
  if (i.overlaps) j["overlaps"] = true;
  return j;
}

Json difference(const Report& r, const ReportDifference& d) {
  Json j;
  add_place(j, r, d.address, d.section, d.function, d.function_offset);
  j["what"] = d.what;
  j["bytes"] = hex(d.code());
  j["intel"] = {{"length", d.intel_length}, {"text", d.intel}};
  j["amd"] = d.amd_length ? Json{{"length", d.amd_length}, {"text", d.amd}} : Json{nullptr};
  return j;
}

// Names come from the file: what is no UTF-8 is replaced.
std::string text(const Json& j, int indent = -1) { return j.dump(indent, ' ', false, Json::error_handler_t::replace); }

// A member whose value is an array, an element a line.
template <class List, class Make>
void array(const Sink& out, const char* name, const List& list, Make make) {
  out(fmt::format(",\n\"{}\": [", name));
  const char* between = "\n";
  for (const auto& element : list) {
    out(between);
    out(text(make(element)));
    between = ",\n";
  }
  out("]");
}

// But for what may be long.
Json image(const Report& r) {
  Json j{{"name", r.name},
         {"format", r.format},
         {"kind", r.kind},
         {"bits", r.bits},
         {"ring", r.ring},
         {"vendor", name_of(r.vendors)},
         {"counts", counts(r.counts)},
         {"patched", counts(r.patched)},
         {"filtered", counts(r.filtered)}};
  const Totals& t = r.totals;
  j["bytes"] = {{"certain", t.certain},
                {"likely", t.likely},
                {"speculative", t.speculative},
                {"padding", t.padding},
                {"data", t.data}};
  j["decoded_instructions"] = t.instructions;
  j["jump_tables"] = r.jump_tables;
  j["unresolved_jumps"] = r.unresolved_jumps;
  j["patch_tables"] = r.patch_entries;
  j["instructions"] = instructions(r);
  j["sections"] = Json::array();
  for (const ReportSection& s : r.sections) {
    Json section{{"name", s.name}, {"size", s.size}, {"counts", counts(s.counts)}};
    if (!r.relocatable) section["address"] = address(s.address);
    j["sections"].push_back(std::move(section));
  }
  j["functions"] = Json::array();
  for (const ReportFunction& f : r.functions) {
    Json function{{"name", f.name}, {"size", f.size}, {"counts", counts(f.counts)}};
    if (!r.relocatable) function["address"] = address(f.address);
    if (f.section >= 0) function["section"] = r.sections[static_cast<std::size_t>(f.section)].name;
    j["functions"].push_back(std::move(function));
  }
  j["warnings"] = r.warnings;
  return j;
}

}  // namespace

void write_json(const Sink& out, std::span<const Report> reports, const std::string& version) {
  Json head{{"schema", "trapline-scan/1"}};
  if (!version.empty()) head["version"] = version;
  std::string opened = text(head);
  opened.pop_back();
  out(opened + ", \"images\": [");
  const char* between = "\n";
  for (const Report& r : reports) {
    std::string object = text(image(r), 1);
    object.resize(object.find_last_of('}'));
    while (object.back() == '\n' || object.back() == ' ') object.pop_back();
    out(between);
    out(object);
    array(out, "findings", r.items, [&](const Item& i) { return finding(r, i); });
    array(out, "vendor_differences", r.differences, [&](const ReportDifference& d) { return difference(r, d); });
    out("}");
    between = ",\n";
  }
  out("]}\n");
}

}  // namespace trapline::scan
