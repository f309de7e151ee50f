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

Json finding(const Report& r, const Item& i) {
  Json j;
  if (!r.relocatable) j["address"] = address(i.address);
  if (i.section >= 0) {
    j["section"] = r.sections[static_cast<std::size_t>(i.section)].name;
    j["offset"] = i.offset;
  }
  if (i.function >= 0) {
    j["function"] = r.functions[static_cast<std::size_t>(i.function)].name;
    j["function_offset"] = i.function_offset;
  }
  j["instruction"] = isa::slug(i.row->id);
  j["class"] = isa::name(i.cls);
  j["confidence"] = i.confidence;
  if (i.cpl >= 0) {
    j["cpl"] = i.cpl;
    j["bits"] = static_cast<unsigned>(i.code_size) * 8;
  }
  j["bytes"] = hex(i.bytes);
  j["text"] = i.text;
  if (i.patch) j["patch"] = {{"kind", i.patch}, {"text", i.patch_text}};
  if (i.overlaps) j["overlaps"] = true;
  return j;
}

Json image(const Report& r) {
  Json j{{"name", r.name},
         {"format", r.format},
         {"kind", r.kind},
         {"bits", r.bits},
         {"ring", r.ring},
         {"counts", counts(r.counts)},
         {"patched", counts(r.patched)}};
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
  j["findings"] = Json::array();
  for (const Item& i : r.items) j["findings"].push_back(finding(r, i));
  j["warnings"] = r.warnings;
  return j;
}

}  // namespace

std::string to_json(std::span<const Report> reports, const std::string& version) {
  Json j{{"schema", "trapline-scan/1"}};
  if (!version.empty()) j["version"] = version;
  j["images"] = Json::array();
  for (const Report& r : reports) j["images"].push_back(image(r));
  // Names come from the file: what is no UTF-8 is replaced.
  return j.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace trapline::scan
