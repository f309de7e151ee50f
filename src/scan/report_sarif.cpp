// SARIF 2.1.0 (OASIS standard, 27 March 2020): a rule per row of the instruction table, a result per finding.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "scan/report.h"

namespace trapline::scan {

namespace {

using Json = nlohmann::ordered_json;

// RFC 3986: what is not unreserved is percent-encoded; an absolute path becomes a file URI.
std::string uri(const std::string& path) {
  std::string out = path.starts_with('/') ? "file://" : "";
  for (const char c : path) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
                       c == '.' || c == '_' || c == '~' || c == '/';
    out += plain ? std::string{c} : fmt::format("%{:02X}", static_cast<u8>(c));
  }
  return out;
}

const char* level(isa::Class c) {
  return c == isa::Class::critical ? "warning" : c == isa::Class::privileged ? "note" : "none";
}

constexpr const char* kVendorRule = "vendor-dependent";

Json rules() {
  Json out = Json::array();
  for (const isa::Row& row : isa::table())
    out.push_back({{"id", isa::slug(row.id)},
                   {"name", row.name},
                   {"shortDescription", {{"text", row.what.empty() ? row.name : row.what}}},
                   {"fullDescription",
                    {{"text", fmt::format("Ring 0: {} Ring 3: {}", isa::why(row, isa::Ring::ring0),
                                          isa::why(row, isa::Ring::ring3))}}},
                   {"help", {{"text", row.manual.empty() ? std::string_view{"Intel SDM, AMD APM"} : row.manual}}},
                   {"properties", {{"ring0", isa::name(row.ring0.cls)}, {"ring3", isa::name(row.ring3.cls)}}}});
  out.push_back({{"id", kVendorRule},
                 {"name", "vendor-dependent instruction"},
                 {"shortDescription", {{"text", "Intel's and AMD's CPUs take these bytes differently"}}},
                 {"help", {{"text", "Intel SDM, AMD APM"}}}});
  return out;
}

Json result(const Report& r, const Item& i, std::size_t artifact) {
  const std::string where =
      i.function >= 0 ? fmt::format(" in {}", r.functions[static_cast<std::size_t>(i.function)].name) : std::string{};
  const std::string_view why = isa::why(*i.row, i.ring);
  Json physical{{"artifactLocation", {{"uri", uri(r.name)}, {"index", artifact}}}};
  if (!r.relocatable) physical["address"] = {{"absoluteAddress", i.address}, {"length", i.length}};
  // Offsets in a compressed file or an archive would be those of what came out of it.
  if (!r.packed && i.section >= 0)
    physical["region"] = {{"byteOffset", r.sections[static_cast<std::size_t>(i.section)].file_offset + offset_of(r, i)},
                          {"byteLength", i.length}};
  Json location{{"physicalLocation", std::move(physical)}};
  if (i.function >= 0)
    location["logicalLocations"] =
        Json::array({{{"name", r.functions[static_cast<std::size_t>(i.function)].name}, {"kind", "function"}}});
  Json j{{"ruleId", isa::slug(i.row->id)},
         {"ruleIndex", static_cast<u16>(i.row->id)},
         {"level", level(i.cls)},
         {"message", {{"text", fmt::format("{} ({}){}: {}", text_of(r, i), isa::name(i.cls), where, why)}}},
         {"locations", Json::array({std::move(location)})},
         {"properties",
          {{"class", isa::name(i.cls)},
           {"confidence", name_of(i.how)},
           {"bytes", hex(i.code())},
           {"place", place(r, i)}}}};
  if (i.patch >= 0) j["properties"]["patch"] = r.patches[static_cast<std::size_t>(i.patch)].text;
  return j;
}

Json result(const Report& r, const ReportDifference& d, std::size_t artifact) {
  Json physical{{"artifactLocation", {{"uri", uri(r.name)}, {"index", artifact}}}};
  if (!r.relocatable) physical["address"] = {{"absoluteAddress", d.address}, {"length", d.length}};
  const ReportSection& s = r.sections[static_cast<std::size_t>(d.section)];
  if (!r.packed)
    physical["region"] = {{"byteOffset", s.file_offset + (d.address - s.address)}, {"byteLength", d.length}};
  return {{"ruleId", kVendorRule},
          {"ruleIndex", isa::table().size()},
          {"level", "note"},
          {"message", {{"text", fmt::format("{}; Intel: {}; AMD: {}", d.what, d.intel, d.amd_length ? d.amd : "#UD")}}},
          {"locations", Json::array({{{"physicalLocation", std::move(physical)}}})},
          {"properties", {{"bytes", hex(d.code())}, {"place", place(r, d.address, d.section)}}}};
}

std::string text(const Json& j) { return j.dump(-1, ' ', false, Json::error_handler_t::replace); }

}  // namespace

void write_sarif(const Sink& out, std::span<const Report> reports, const std::string& version) {
  Json run{{"tool", {{"driver", {{"name", "trapline"}, {"version", version}, {"rules", rules()}}}}},
           {"artifacts", Json::array()},
           {"columnKind", "utf16CodeUnits"}};
  for (const Report& r : reports)
    run["artifacts"].push_back({{"location", {{"uri", uri(r.name)}}}, {"description", {{"text", r.format}}}});
  Json notes = Json::array();
  for (const Report& r : reports)
    for (const std::string& w : r.warnings)
      notes.push_back({{"level", "warning"}, {"message", {{"text", fmt::format("{}: {}", r.name, w)}}}});
  run["invocations"] = Json::array({{{"executionSuccessful", true}, {"toolExecutionNotifications", std::move(notes)}}});
  std::string head = text(run);
  head.pop_back();
  out("{\"$schema\": \"https://json.schemastore.org/sarif-2.1.0.json\", \"version\": \"2.1.0\", \"runs\": [\n");
  out(head);
  out(", \"results\": [");
  const char* between = "\n";
  const auto put = [&](const Json& j) {
    out(between);
    out(text(j));
    between = ",\n";
  };
  for (std::size_t artifact = 0; artifact < reports.size(); artifact++) {
    for (const Item& i : reports[artifact].items) put(result(reports[artifact], i, artifact));
    for (const ReportDifference& d : reports[artifact].differences) put(result(reports[artifact], d, artifact));
  }
  out("]}]}\n");
}

}  // namespace trapline::scan
