#include <nlohmann/json.hpp>

#include "isa/report/report.h"

namespace trapline::isa::report {

namespace {

using Json = nlohmann::ordered_json;

Json ring_json(const Row& row, Ring ring, HostFeatures host) {
  const InRing& in = in_ring(row, ring);
  return {{"class", name(in.cls)},
          {"class_on_this_host", name(class_on(row, ring, host))},
          {"why", why(row, ring)},
          {"translate", name(in.translate)},
          {"patch", name(in.patch)}};
}

Json effect_json(const Row& row) {
  Json out = Json::array();
  for (const Alternative& a : row.effect) {
    if (a.feature == Feature::count) break;
    out.push_back({{"feature", name(a.feature)}, {"present", a.present}, {"effect", name(a.effect)}});
  }
  return out;
}

Json row_json(const Row& row, HostFeatures host) {
  Json mnemonics = Json::array();
  for (ZydisMnemonic m : row.mnemonics)
    if (m != ZYDIS_MNEMONIC_INVALID) mnemonics.push_back(ZydisMnemonicGetString(m));
  Json cage = {{"treatment", name(row.cage)}};
  if (row.cage_needs != Feature::always) cage["needs"] = name(row.cage_needs), cage["else"] = name(row.cage_else);
  return {{"id", slug(row.id)},
          {"name", row.name},
          {"what", row.what},
          {"mnemonics", mnemonics},
          {"modes", modes(row)},
          {"sensitivity", name(row.sensitivity)},
          {"ring0", ring_json(row, Ring::ring0, host)},
          {"ring3", ring_json(row, Ring::ring3, host)},
          {"effect_in_ring3", effect_json(row)},
          {"effect_on_this_host", name(effect_on(row, host))},
          {"cage", cage},
          {"para", row.para},
          {"robin_irvine", row.robin_irvine},
          {"manual", row.manual}};
}

Json finding_json(const verify::Finding& f) {
  constexpr const char* words[] = {"agrees", "differs", "not run"};
  return {{"id", slug(f.row->id)},
          {"mode", verify::name(f.size)},
          {"variant", f.variant},
          {"expected", name(f.expected)},
          {"instruction", f.ran},
          {"happened", f.happened},
          {"result", words[static_cast<u8>(f.agreement)]}};
}

Json ids(const std::vector<const Row*>& rows) {
  Json out = Json::array();
  for (const Row* row : rows) out.push_back(slug(row->id));
  return out;
}

}  // namespace

std::string json(const Report& report) {
  const Verdict v = verdict(report.host);
  Json features = Json::array(), rows = Json::array();
  for (Feature f : present(report.host)) features.push_back(name(f));
  for (const Row* row : report.rows) rows.push_back(row_json(*row, report.host));
  Json out = {{"host", {{"name", report.host_name}, {"features", features}}},
              {"verdict",
               {{"virtualizable_by_trap_and_emulate", v.virtualizable()},
                {"sensitive", v.sensitive},
                {"critical_in_ring0", ids(v.critical)},
                {"critical_in_ring3", ids(v.in_ring3)},
                {"made_to_trap", ids(v.made_to_trap)}}},
              {"instructions", rows}};
  if (!report.findings.empty()) {
    Json findings = Json::array();
    for (const verify::Finding& f : report.findings) findings.push_back(finding_json(f));
    out["verification"] = {{"mismatches", mismatches(report.findings)}, {"findings", findings}};
  }
  return out.dump(2, ' ', false, Json::error_handler_t::replace) + '\n';
}

}  // namespace trapline::isa::report
