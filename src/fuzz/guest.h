// Runs sequences in an engine: one vCPU in 64-bit mode at CPL 3, with page tables, GDT, IDT and TSS made by hand so
// that it sees the same addresses as the native child. Every vector's handler is a HLT at CPL 0: delivery is part of
// what is tested.
#pragma once

#include <memory>
#include <string>

#include "base/result.h"
#include "fuzz/program.h"

namespace trapline::fuzz {

class Guest {
 public:
  // `counted`: does translated code count its instructions? Error: names the engine, or what the host lacks.
  static Result<std::unique_ptr<Guest>, std::string> make(const std::string& engine, bool counted = true);
  ~Guest();
  Guest(const Guest&) = delete;
  Guest& operator=(const Guest&) = delete;

  // Puts the code of up to place::batch programs where the native child has it.
  void load(const std::vector<const Program*>& programs);
  // Runs the program loaded as number `index`.
  void run(const Program& program, std::size_t index, Outcome& out);
  // How often a cage has stopped: 0 where the engine has none.
  u64 cage_stops() const;

 private:
  Guest();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace trapline::fuzz
