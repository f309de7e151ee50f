// One guest under several techniques: all runs, interleaved, and what they have in common.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "compare/agreement.h"
#include "compare/builtin.h"
#include "compare/guest_run.h"
#include "compare/technique.h"
#include "isa/table.h"

namespace trapline::compare {

struct Spread {
  double median = 0, least = 0, most = 0;
};
Spread spread_of(std::vector<double> values);  // not empty

// How often a sensitive instruction was executed in a ring, by way.
struct Executed {
  const isa::Row* row = nullptr;
  isa::Ring ring = isa::Ring::ring0;
  isa::Class cls = isa::Class::innocuous;
  u64 ways[channel::SensitiveCounts::kWays] = {};
  u64 total() const;
};

// One technique's runs.
struct Measured {
  Technique technique;
  std::string impossible;       // why it could not be run; else empty
  GuestRun counted;             // with everything counted
  std::vector<GuestRun> timed;  // as they are; of a slow technique the counted run
  std::string differs;          // from the reference, where first; empty: all runs agree with it

  bool ran() const { return impossible.empty(); }
  Spread seconds() const;
  Spread cpu_seconds() const;
  Spread boot() const;  // until the first line that is compared
  std::optional<u64> memory() const;
  std::vector<Executed> executed() const;  // critical ones first, often ones first
  u64 instructions() const { return counted.figures ? counted.figures->sum.retired : 0; }
  u64 of_class(isa::Class cls) const;
};

struct Request {
  machine::Config config;  // of the guest; engine and para are the technique's
  std::vector<Technique> techniques;
  u32 rounds = 3;
  bool para_named = false;  // a technique that the guest cannot take is a mistake, not a fact
};

struct Comparison {
  std::vector<Measured> all;
  std::size_t reference = 0;  // of those that ran, the first
  bool agree() const;
};

struct Failure {
  int code;
  std::string text;
};

// Runs them all. `progress` is told what begins, as "translate, kvm: round 2 of 3". The Failure is that no technique
// could run.
Result<Comparison, Failure> measure(const Request& request, const std::function<void(const std::string&)>& progress);

// How long each part of the built-in workload took under a technique: its name and the median of the timed runs.
std::vector<Part> median_parts(const Measured& m);

// Medium cost of one, in microseconds, of the counted run; nothing: there were none.
struct Cost {
  u64 count = 0;
  double microseconds = 0;
};
Cost request_cost(const Measured& m);  // of a request to the monitor
Cost stop_cost(const Measured& m);     // of a stop of a cage

// How often a technique executed an instruction, with what is derived: how often a program ran it directly, in a cage,
// where nobody counts; that is what the interpreter executed of it in ring 3 with the same interface, less what is
// counted here.
struct Row : Executed {
  u64 direct = 0;
  u64 total() const { return Executed::total() + direct; }
  bool same(const Row& other) const { return row == other.row && ring == other.ring; }
};
std::vector<Row> rows_of(const Comparison& c, const Measured& m);  // in the order of executed()

std::string_view name(channel::Way way);

}  // namespace trapline::compare
