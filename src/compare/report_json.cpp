#include <nlohmann/json.hpp>

#include "compare/report.h"

namespace trapline::compare {

namespace {

using Json = nlohmann::ordered_json;

Json of(const Spread& s) { return {{"median", s.median}, {"least", s.least}, {"most", s.most}}; }
Json of(const Cost& c) { return {{"count", c.count}, {"microseconds", c.microseconds}}; }

Json of(const Row& e) {
  Json ways = Json::object();
  for (unsigned w = 0; w < channel::SensitiveCounts::kWays; w++)
    if (e.ways[w]) ways[std::string{name(static_cast<channel::Way>(w))}] = e.ways[w];
  return {{"instruction", isa::slug(e.row->id)}, {"ring", e.ring == isa::Ring::ring0 ? 0 : 3},
          {"class", isa::name(e.cls)},           {"executed", e.Executed::total()},
          {"direct_derived", e.direct},          {"ways", ways}};
}

Json exits_of(const channel::Counters& c) {
  return {{"port_reads", c.port_reads},
          {"port_writes", c.port_writes},
          {"device_reads", c.mmio_reads},
          {"device_writes", c.mmio_writes},
          {"halts", c.halts},
          {"interrupts", c.interrupts},
          {"page_walks", c.page_walks},
          {"tlb_flushes", c.tlb_flushes},
          {"hypercalls", c.hypercalls}};
}

Json of(const Comparison& c, const Measured& m) {
  Json j = {{"engine", m.technique.way()}, {"para", m.technique.para.name}};
  if (!m.ran()) {
    j["not_run"] = m.impossible;
    return j;
  }
  j["exit_code"] = m.counted.code;
  j["agrees"] = m.differs.empty();
  if (&m == &c.all[c.reference]) j["reference"] = true;
  if (!m.differs.empty()) j["difference"] = m.differs;
  j["runs"] = m.timed.size();
  j["timed_while_counting"] = m.technique.slow;
  j["seconds"] = of(m.seconds());
  j["cpu_seconds"] = of(m.cpu_seconds());
  j["boot_seconds"] = of(m.boot());
  if (const auto memory = m.memory()) j["memory_bytes"] = *memory;
  if (const auto parts = median_parts(m); !parts.empty())
    for (const Part& part : parts) j["parts"][part.name] = part.seconds;
  j["instructions"] = m.instructions();
  j["requests"] = of(request_cost(m));
  j["cage_stops"] = of(stop_cost(m));
  if (m.counted.figures) {
    j["exits"] = exits_of(m.counted.figures->sum.count);
    j["host_code_bytes"] = m.counted.figures->sum.count.host_code_bytes;
  }
  j["sensitive"] = Json::array();
  for (const Row& e : rows_of(c, m)) j["sensitive"].push_back(of(e));
  return j;
}

}  // namespace

std::string json_of(const Comparison& c, const Setting& s) {
  Json j = {{"trapline", s.version},    {"guest", s.guest},   {"host", s.host},     {"cpus", s.cpus},
            {"memory_bytes", s.memory}, {"rounds", s.rounds}, {"agree", c.agree()}, {"techniques", Json::array()}};
  for (const Measured& m : c.all) j["techniques"].push_back(of(c, m));
  return j.dump(2, ' ', false, Json::error_handler_t::replace) + '\n';
}

}  // namespace trapline::compare
