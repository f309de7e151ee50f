#include "compare/comparison.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "channel/exit_codes.h"

namespace trapline::compare {

namespace {

using channel::SensitiveCounts;

template <class F>
Spread over(const std::vector<GuestRun>& runs, F value) {
  std::vector<double> values;
  values.reserve(runs.size());
  for (const GuestRun& run : runs) values.push_back(value(run));
  return spread_of(std::move(values));
}

double boot_seconds(const GuestRun& run) {
  const auto lines = compared_lines(run);
  return lines.empty() ? run.seconds : lines.front()->seconds;
}

// The guest has executed nothing: its exit code is Trapline's own.
bool did_not_start(const GuestRun& counted) { return !counted.figures || counted.figures->sum.retired == 0; }

Result<GuestRun, Failure> run(const Request& request, const Technique& technique, bool counted) {
  machine::Config config = request.config;
  config.engine = technique.engine;
  config.engine_settings.traps = technique.traps;
  config.para = technique.para.value;
  config.what = "compare: " + technique.name();
  auto run = run_guest(config, counted);
  if (!run) return Err{Failure{static_cast<int>(ExitCode::host_refused), run.error()}};
  return std::move(*run);
}

void hold_against(Measured& m, const GuestRun& run, const GuestRun& reference) {
  if (!m.differs.empty()) return;
  if (const auto d = difference(reference, run)) m.differs = describe(*d);
}

Cost cost(const Measured& m, u64 count, u64 ticks) {
  if (count == 0 || !m.counted.figures || m.counted.figures->tsc_khz == 0) return {count, 0};
  const double ms = static_cast<double>(ticks) / static_cast<double>(m.counted.figures->tsc_khz);
  return {count, ms * 1000 / static_cast<double>(count)};
}

}  // namespace

Spread spread_of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t n = values.size();
  const double median = n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
  return {median, values.front(), values.back()};
}

u64 Executed::total() const { return std::accumulate(std::begin(ways), std::end(ways), u64{0}); }

Spread Measured::seconds() const {
  return over(timed, [](const GuestRun& r) { return r.seconds; });
}
Spread Measured::cpu_seconds() const {
  return over(timed, [](const GuestRun& r) { return r.cpu_seconds; });
}
Spread Measured::boot() const { return over(timed, boot_seconds); }

std::optional<u64> Measured::memory() const {
  std::optional<u64> most;
  for (const GuestRun& run : timed)
    if (run.memory) most = std::max(most.value_or(0), *run.memory);
  return most;
}

namespace {

// Critical ones first, often ones first.
template <class T>
void sort_rows(std::vector<T>& rows) {
  const auto rank = [](isa::Class c) { return c == isa::Class::critical ? 0 : c == isa::Class::privileged ? 1 : 2; };
  std::stable_sort(rows.begin(), rows.end(), [&](const T& a, const T& b) {
    return std::pair{rank(a.cls), ~a.total()} < std::pair{rank(b.cls), ~b.total()};
  });
}

}  // namespace

std::vector<Executed> Measured::executed() const {
  std::vector<Executed> all;
  if (!counted.sensitive) return all;
  for (const isa::Row& row : isa::table())
    for (const isa::Ring ring : {isa::Ring::ring0, isa::Ring::ring3}) {
      Executed e{&row, ring, isa::class_of(&row, ring), {}};
      const auto& times = counted.sensitive->times[static_cast<unsigned>(row.id)][static_cast<unsigned>(ring)];
      std::copy(std::begin(times), std::end(times), e.ways);
      if (e.total() != 0) all.push_back(e);
    }
  sort_rows(all);
  return all;
}

u64 Measured::of_class(isa::Class cls) const {
  u64 sum = 0;
  for (const Executed& e : executed())
    if (e.cls == cls) sum += e.total();
  return sum;
}

std::vector<Row> rows_of(const Comparison& c, const Measured& m) {
  std::vector<Row> rows;
  for (const Executed& e : m.executed()) rows.push_back({e, 0});
  if (!m.technique.direct) return rows;
  for (const Measured& other : c.all) {
    if (!other.ran() || !other.technique.slow || other.technique.para.name != m.technique.para.name) continue;
    for (const Executed& e : other.executed()) {
      if (e.ring != isa::Ring::ring3) continue;
      auto own = std::find_if(rows.begin(), rows.end(), [&](const Row& r) { return r.same({e, 0}); });
      if (own == rows.end()) own = rows.insert(rows.end(), Row{{e.row, e.ring, e.cls, {}}, 0});
      const u64 counted = own->total();
      if (e.total() > counted) own->direct = e.total() - counted;
    }
  }
  std::erase_if(rows, [](const Row& r) { return r.total() == 0; });
  sort_rows(rows);
  return rows;
}

bool Comparison::agree() const {
  return std::all_of(all.begin(), all.end(), [](const Measured& m) { return m.differs.empty(); });
}

Result<Comparison, Failure> measure(const Request& request, const std::function<void(const std::string&)>& progress) {
  Comparison result;
  std::optional<Failure> failure;
  const GuestRun* reference = nullptr;
  result.all.reserve(request.techniques.size());  // `reference` stays where it is
  for (const Technique& technique : request.techniques) {
    progress(technique.name() + ": counting");
    auto counted = run(request, technique, true);
    if (!counted) return Err{counted.error()};
    Measured m{technique, {}, std::move(*counted), {}, {}};
    if (did_not_start(m.counted)) {
      m.impossible = m.counted.last_message();
      if (!failure) failure = Failure{m.counted.code, m.impossible};
      if (request.para_named) return Err{Failure{m.counted.code, technique.name() + ": " + m.impossible}};
    }
    result.all.push_back(std::move(m));
    Measured& kept = result.all.back();
    if (!kept.ran()) continue;
    if (!reference) reference = &kept.counted, result.reference = result.all.size() - 1;
    hold_against(kept, kept.counted, *reference);
    if (technique.slow) kept.timed.push_back(kept.counted);
  }
  if (!reference) return Err{failure.value_or(Failure{static_cast<int>(ExitCode::usage), "no technique"})};
  for (u32 round = 1; round <= request.rounds; round++)
    for (Measured& m : result.all) {
      if (!m.ran() || m.technique.slow) continue;
      progress(fmt::format("{}: round {} of {}", m.technique.name(), round, request.rounds));
      auto timed = run(request, m.technique, false);
      if (!timed) return Err{timed.error()};
      hold_against(m, *timed, *reference);
      m.timed.push_back(std::move(*timed));
    }
  return result;
}

std::vector<Part> median_parts(const Measured& m) {
  std::vector<Part> parts = m.timed.empty() ? std::vector<Part>{} : parts_of(m.timed.front());
  for (std::size_t i = 0; i < parts.size(); i++) {
    std::vector<double> values;
    for (const GuestRun& run : m.timed)
      if (const auto other = parts_of(run); i < other.size() && other[i].name == parts[i].name)
        values.push_back(other[i].seconds);
    parts[i].seconds = spread_of(values).median;
  }
  return parts;
}

Cost request_cost(const Measured& m) {
  if (!m.counted.figures) return {};
  const channel::Counters& c = m.counted.figures->sum.count;
  return cost(m, c.requests, c.request_ticks);
}

Cost stop_cost(const Measured& m) {
  if (!m.counted.figures) return {};
  const channel::Counters& c = m.counted.figures->sum.count;
  return cost(m, c.cage_calls + c.cage_faults + c.cage_traps + c.cage_kicks, c.cage_beside);
}

std::string_view name(channel::Way way) {
  switch (way) {
    case channel::Way::interpreted:
      return "interpreted";
    case channel::Way::inlined:
      return "inlined";
    case channel::Way::called:
      return "called";
    case channel::Way::trapped:
      return "trapped";
    default:
      return "?";
  }
}

}  // namespace trapline::compare
