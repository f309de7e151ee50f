// The guest of `trapline compare` when it is given none.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "compare/guest_run.h"

namespace trapline::compare {

// What its kernel is told: to be silent, to test nothing and to wait for no hardware that is not there.
extern const char* const kBuiltinCommandLine;

// A descriptor of its initramfs; the caller's. An error is one line.
Result<int, std::string> make_builtin_initrd();

// How long each part of the workload took, by its lines; `seconds` of "boot" is until its first one. Empty: these are
// not its lines.
struct Part {
  std::string name;
  double seconds;
};
std::vector<Part> parts_of(const GuestRun& run);

}  // namespace trapline::compare
