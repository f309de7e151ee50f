// Compares what the table says with what the host's CPU does.
#pragma once

#include <string>
#include <vector>

#include "isa/table.h"
#include "isa/verify/run.h"

namespace trapline::isa::verify {

enum class Agreement : u8 { agrees, differs, not_run };

struct Finding {
  const Row* row = nullptr;
  CodeSize size = CodeSize::bits64;
  std::string_view variant = {};  // "", "CPUID faulting on", "TSC disabled"
  HostFeatures features = {};     // in that mode and variant
  Effect expected = Effect::acts;
  Agreement agreement = Agreement::not_run;
  std::string ran = {};       // "popfq", for people
  std::string happened = {};  // "rax 5a5a5a5a -> 33"; for not_run: why
};

// One row in one mode, under the host's features (and a variant's, added to them).
Finding verify(const Row& row, CodeSize size, HostFeatures host);

// Every row in every mode that the host runs, and again with CPUID and RDTSC disabled where the row depends on that.
std::vector<Finding> verify_all(HostFeatures host);

// All of one row.
std::vector<Finding> verify_row(const Row& row, HostFeatures host);

// The judgement alone: does that observation of that stage fit the effect?
bool fits(const Row& row, Effect expected, const Stage& stage, const Observation& seen);

// What was seen, in a few words: the signal and trap, or what changed.
std::string describe(const Row& row, const Stage& stage, const Observation& seen);

std::string_view name(CodeSize size);  // "64-bit"

}  // namespace trapline::isa::verify
