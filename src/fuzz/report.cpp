#include "fuzz/report.h"

#include <fmt/format.h>

#include <algorithm>

#include "fuzz/lenient.h"

namespace trapline::fuzz {

namespace {

double seconds_since(Report::Start start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

Report::Report(const FuzzOptions& options, const Extent& extent, const AllForms& forms)
    : options_{options}, extent_{extent}, forms_{forms} {}

std::string Report::rerun(const Program& program) const {
  return fmt::format("trapline fuzz --engine={}{}{} --seed={}", options_.engine,
                     options_.uncounted ? " --uncounted" : "",
                     options_.bits ? fmt::format(" --bits={}", options_.bits) : "", program.seed);
}

void Report::show(const Program& program, std::size_t slot) const {
  fmt::print(options_.out, "sequence {}\n{}", program.seed, listing(program, code_at(slot)));
  std::fflush(options_.out);
}

void Report::count(const Program& program, const Outcome& native, std::size_t slot) {
  const u64 end = stopped_at(program, slot, native) - code_at(slot);
  u64 at = 0;
  for (const Item& i : program.items) {
    if (at >= end) break;
    by_extension_[forms_.of(program.size).extensions()[i.extension].name]++;
    by_size_[program.size == isa::CodeSize::bits64 ? 2 : program.size == isa::CodeSize::bits32 ? 1 : 0]++;
    instructions_++;
    at += i.length;
  }
  Ending ending = native.ending;
  ending.error = 0;
  ending.address = 0;
  const std::string name = name_of(ending);
  by_ending_[name.substr(0, name.find('('))]++;
}

void Report::print_case(const Program& program, std::size_t slot, const Outcome& native, const Outcome& engine) const {
  const Registers& before = program.initial.regs;
  fmt::print(options_.out, "{}  before: rflags {:x}", listing(program, code_at(slot)), before.rflags);
  for (unsigned i = 0; i < 16; i++)
    fmt::print(options_.out, "{}{} {:x}", i % 8 ? ", " : "\n    ", name_of_gpr(i), before.gpr[i]);
  fmt::print(options_.out, "\n  ended: host {} at {:#x}, engine {} at {:#x}\n", name_of(native.ending),
             native.state.regs.rip, name_of(engine.ending), engine.state.regs.rip);
  for (const std::string& line : differences(native, engine, extent_, lenient_at(program, slot, native)))
    fmt::print(options_.out, "  {}\n", line);
}

void Report::difference(const Program& program, std::size_t slot, const Outcome& native, const Outcome& engine) {
  differing_++;
  fmt::print(options_.out, "\nDIFFERENCE in sequence {}\n", program.seed);
  print_case(program, slot, native, engine);
  fmt::print(options_.out, "  again: {}\n", rerun(program));
  std::fflush(options_.out);
}

void Report::once(const Program& program) {
  once_++;
  fmt::print(options_.out, "fuzz: sequence {} differed, and did not when the host ran it again\n", program.seed);
  std::fflush(options_.out);
}

void Report::minimized(const Program& program, const Outcome& native, const Outcome& engine) const {
  fmt::print(options_.out, "\nminimized, from seed {}:\n", program.seed);
  print_case(program, 0, native, engine);
  std::fflush(options_.out);
}

void Report::progress(Start start, u64 sequences) {
  if (seconds_since(last_progress_) < 10) return;
  last_progress_ = std::chrono::steady_clock::now();
  fmt::print(options_.out, "fuzz: {} instructions, {} sequences, {} differences, {:.0f} instructions/s\n",
             instructions_, sequences, differing_, static_cast<double>(instructions_) / seconds_since(start));
  std::fflush(options_.out);
}

void Report::summary(Start start, u64 sequences, u64 restarts) const {
  const double seconds = seconds_since(start);
  std::string extensions, endings;
  std::vector<std::pair<u64, std::string>> sorted;
  for (const auto& [name, n] : by_extension_) sorted.emplace_back(n, name);
  std::sort(sorted.rbegin(), sorted.rend());
  for (const auto& [n, name] : sorted) extensions += fmt::format("{}{} {}", extensions.empty() ? "" : ", ", name, n);
  for (const auto& [name, n] : by_ending_)
    endings += fmt::format("{}{} {}", endings.empty() ? "" : ", ", name == "#BP" ? "whole" : name, n);
  fmt::print(options_.out, "fuzz: {} instructions, {} sequences in {:.1f} s ({:.0f} instructions/s)\n", instructions_,
             sequences, seconds, static_cast<double>(instructions_) / seconds);
  fmt::print(options_.out, "fuzz: by code size: 64 bits {}, 32 bits {}, 16 bits {}\n", by_size_[2], by_size_[1],
             by_size_[0]);
  fmt::print(options_.out, "fuzz: by extension: {}\nfuzz: by ending: {}\n", extensions, endings);
  if (restarts) fmt::print(options_.out, "fuzz: the host's process had to be started again {} times\n", restarts);
  if (once_) fmt::print(options_.out, "fuzz: {} sequences differed at the host's first run alone\n", once_);
  fmt::print(options_.out, "fuzz: {} differences\n", differing_);
  std::fflush(options_.out);
}

}  // namespace trapline::fuzz
