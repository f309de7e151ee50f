// What the differential tester prints: progress, differences with their one-line rerun, totals by extension.
#pragma once

#include <chrono>
#include <map>
#include <string>
#include <vector>

#include "fuzz/fuzz.h"
#include "fuzz/program.h"

namespace trapline::fuzz {

class Report {
 public:
  using Start = std::chrono::steady_clock::time_point;

  Report(const FuzzOptions& options, const Extent& extent, const AllForms& forms);

  void show(const Program& program, std::size_t slot) const;
  // Adds the instructions before the one where the host stopped to the totals.
  void count(const Program& program, const Outcome& native, std::size_t slot);
  void difference(const Program& program, std::size_t slot, const Outcome& native, const Outcome& engine);
  // The host did it no more: said, and not a difference.
  void once(const Program& program);
  void minimized(const Program& program, const Outcome& native, const Outcome& engine) const;
  void progress(Start start, u64 sequences);
  void summary(Start start, u64 sequences, u64 restarts) const;

  u64 instructions() const { return instructions_; }
  u64 differing() const { return differing_; }
  std::string rerun(const Program& program) const;

 private:
  void print_case(const Program& program, std::size_t slot, const Outcome& native, const Outcome& engine) const;

  const FuzzOptions& options_;
  const Extent& extent_;
  const AllForms& forms_;
  std::map<std::string, u64> by_extension_;
  u64 by_size_[3] = {};  // instructions of 16-, 32- and 64-bit code
  std::map<std::string, u64> by_ending_;
  u64 instructions_ = 0, differing_ = 0, once_ = 0;
  Start last_progress_ = std::chrono::steady_clock::now();
};

}  // namespace trapline::fuzz
